"use strict";
(() => {
  // Sorting: every header of a sortable table becomes a button; the row's data-value counts where there is one.
  const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return "";
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  const compare = (a, b, sign) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // what is unknown comes last either way
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * order.compare(String(a), String(b));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[table.tBodies.length - 1]; // a body before it holds what stays on top
    for (const header of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = header.textContent;
      header.replaceChildren(button);
      button.addEventListener("click", () => {
        const next = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        const column = header.cellIndex;
        const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
        rows.sort((a, b) => compare(a[0], b[0], sign));
        body.append(...rows.map((pair) => pair[1]));
      });
    }
  }
  // A link into a fold opens it, and paper shows what is folded.
  const unfold = () => {
    const target = location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
  const folds = () => document.querySelectorAll(".fold, .at-hand");
  addEventListener("beforeprint", () => { for (const fold of folds()) fold.open = true; });
  // On a telephone the cells would stand between the answer and all that is folded.
  if (matchMedia("(max-width:46rem)").matches) {
    for (const fold of document.querySelectorAll(".at-hand")) fold.open = false;
  }
})();
