"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const make = (name, text, attributes = {}) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const draw = (name, attributes, text) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // One box for all that is hovered or focused.
  const tip = make("div", "", { class: "tip", role: "tooltip", id: "tip", hidden: "" });
  document.body.append(tip);
  const showTip = (node, text) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = node.getBoundingClientRect();
    const left = Math.min(Math.max(4, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 4);
    const above = box.top - tip.offsetHeight - 6;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${above > 4 ? above : box.bottom + 6}px`;
  };
  const hideTip = () => { tip.hidden = true; };
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  document.addEventListener("scroll", hideTip, { capture: true, passive: true });

  // Titles of marks become tips that the keyboard reaches too.
  for (const title of document.querySelectorAll("figure.layers circle title")) {
    const mark = title.parentNode;
    const text = title.textContent;
    title.remove();
    mark.setAttribute("tabindex", "0");
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", text);
    mark.closest("svg").setAttribute("role", "group");
    for (const event of ["mouseenter", "focus"]) mark.addEventListener(event, () => showTip(mark, text));
    for (const event of ["mouseleave", "blur"]) mark.addEventListener(event, hideTip);
  }

  // The cells of one student are seen at a time: a list takes the place of the folds that a page without script has.
  const blocksOf = (explorer) => [...explorer.querySelectorAll(".student-cells")];
  const open = (explorer, key) => {
    for (const block of blocksOf(explorer)) {
      block.hidden = block.dataset.student !== key;
      block.open = !block.hidden;
    }
    const list = explorer.querySelector(".student-list select");
    if (list !== null) list.value = key;
    explorer.dispatchEvent(new Event("opened"));
  };
  const offer = (explorer, keys) => {
    const list = explorer.querySelector(".student-list select");
    if (list === null) return;
    const before = list.value;
    const offered = blocksOf(explorer).filter((block) => keys === null || keys.has(block.dataset.student));
    list.replaceChildren(...offered.map((block) => {
      const option = make("option", block.querySelector("summary").textContent);
      option.value = block.dataset.student;
      return option;
    }));
    const shown = offered.some((block) => block.dataset.student === before) ? before : list.value;
    open(explorer, shown);
  };
  for (const explorer of document.querySelectorAll(".explorer")) {
    const blocks = blocksOf(explorer);
    if (blocks.length < 2) continue;
    for (const block of blocks) block.removeAttribute("name");
    const label = make("label", "Student ", { class: "student-list" });
    const list = make("select");
    label.append(list);
    blocks[0].before(label);
    explorer.classList.add("listed");
    list.addEventListener("change", () => open(explorer, list.value));
    const first = blocks.find((block) => block.open);
    offer(explorer, null);
    if (first !== undefined) open(explorer, first.dataset.student);
  }
  for (const panel of document.querySelectorAll("figure.layers")) {
    const key = panel.dataset.student;
    const explorer = [...document.querySelectorAll(".explorer.listed")].find((one) =>
      panel.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING
      && blocksOf(one).some((block) => block.dataset.student === key));
    if (explorer === undefined) continue;
    const caption = panel.querySelector("figcaption");
    const button = make("button", caption.textContent, { type: "button", title: "Show the cells of this student" });
    caption.replaceChildren(button);
    button.addEventListener("click", () => {
      open(explorer, key);
      explorer.closest("details")?.setAttribute("open", "");
      explorer.querySelector(".student-list").scrollIntoView({ block: "nearest" });
    });
  }

  // A student is chosen once, and everything of it shows or hides everywhere.
  const choice = document.querySelector(".choice");
  const chosen = () => choice === null ? null
    : new Set([...choice.querySelectorAll("input:checked")].map((box) => box.value));
  const apply = () => {
    const keys = chosen();
    if (keys === null) return;
    for (const node of document.querySelectorAll("[data-student]:not(.student-cells)")) {
      node.hidden = !keys.has(node.dataset.student);
    }
    for (const node of document.querySelectorAll("[data-students]")) {
      node.hidden = !node.dataset.students.split(" ").some((key) => keys.has(key));
    }
    for (const explorer of document.querySelectorAll(".explorer")) offer(explorer, keys);
  };
  if (choice !== null) {
    choice.addEventListener("change", apply);
    for (const button of choice.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        for (const box of choice.querySelectorAll("input")) box.checked = button.dataset.all === "1";
        apply();
      });
    }
    choice.hidden = false;
    apply();
  }

  const signed = (value, digits) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits);
  const plain = (value, digits) => (value < 0 ? "\u2212" : "") + Math.abs(value).toFixed(digits);

  for (const explorer of document.querySelectorAll(".explorer")) {
    const data = JSON.parse(explorer.querySelector("script[type='application/json']").textContent);
    const detail = explorer.querySelector(".detail");
    const get = (name, cell, scale) => data[name][cell] === null ? null : data[name][cell] / scale;
    const cosine = (name, cell) => get(name, cell, 10000);
    const degrees = (value) => `${(Math.acos(Math.min(1, Math.max(-1, value))) * 180 / Math.PI).toFixed(1)}°`;
    const place = (cell) => `${data.streams[data.stream[cell]]} layer ${data.vertex[cell]}, `
      + `teacher layers ${data.teacher_i[cell]} and ${data.teacher_k[cell]}`;
    const verdict = (cell) => ({ "1": "surely narrower", "-1": "surely wider" })[
      String(data.side[cell])] ?? "not told from it";
    const facts = (cell) => {
      if (data.angle[cell] === null) return [["angle", "none: every token is degenerate"]];
      const rows = [["angle", `${get("angle", cell, 10).toFixed(1)}°, the mean over tokens`]];
      let value = plain(cosine("cosine", cell), 3);
      if (data.low[cell] !== null) {
        value += ` (95%: ${plain(cosine("low", cell), 3)} to ${plain(cosine("high", cell), 3)})`;
      }
      rows.push(["cosine", value]);
      const chance = cosine("chance", cell);
      if (chance !== null) {
        rows.push([data.null, `cosine ${plain(chance, 3)}, ${degrees(chance)}`]);
        let beyond = signed(cosine("beyond", cell), 3);
        if (data.joint_low[cell] !== null) {
          beyond += ` (95%, all pairs: ${signed(cosine("joint_low", cell), 3)} to ${signed(cosine("joint_high", cell), 3)})`;
        }
        rows.push(["beyond that", `${beyond}; ${verdict(cell)}`]);
      }
      rows.push(["acute", `${(100 * cosine("acute", cell)).toFixed(1)}% of tokens`]);
      rows.push(["n", `${data.tokens[cell].toLocaleString("en")} tokens of ${data.examples[cell].toLocaleString("en")} examples`]);
      return rows;
    };

    const histogram = (cell) => {
      const bins = data.bins;
      const at = 2 * bins * cell;
      const level = (bin) => {
        const from = at + 2 * bin;
        return (64 * DIGITS.indexOf(data.histograms[from]) + DIGITS.indexOf(data.histograms[from + 1])) / 4095;
      };
      const [wide, high, left, base] = [360, 150, 12, 118];
      const across = (value) => left + (wide - 2 * left) * (value + 1) / 2;
      const svg = draw("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img" });
      const shares = [];
      for (let bin = 0; bin < bins; bin += 1) {
        const size = level(bin) * 100;
        const from = -1 + 2 * bin / bins;
        const share = level(bin) * data.peak[cell] / 100;
        shares.push(share);
        if (size === 0) continue;
        const bar = draw("rect", {
          x: across(from).toFixed(1), y: (base - size).toFixed(1), height: size.toFixed(1),
          width: ((wide - 2 * left) / bins - 0.6).toFixed(1), class: from < -1e-9 ? "bar past" : "bar",
        });
        const text = `cosine ${plain(from, 2)} to ${plain(from + 2 / bins, 2)}: ${share.toFixed(1)}% of tokens`;
        bar.addEventListener("mouseenter", () => showTip(bar, text));
        bar.addEventListener("mouseleave", hideTip);
        svg.append(bar);
      }
      const obtuse = shares.slice(0, bins / 2).reduce((sum, one) => sum + one, 0);
      svg.setAttribute("aria-label", `Histogram of the cosine over tokens; ${obtuse.toFixed(1)}% are obtuse`);
      svg.append(draw("line", { x1: left, x2: wide - left, y1: base, y2: base, class: "chance-line" }));
      for (const [value, name] of [[-1, "180°"], [-0.5, "120°"], [0, "90°"], [0.5, "60°"], [1, "0°"]]) {
        svg.append(draw("text", { x: across(value), y: base + 13, "text-anchor": "middle" }, name));
      }
      svg.append(draw("text", { x: wide / 2, y: base + 27, "text-anchor": "middle" }, `line: mean cosine; dashed: ${data.null}`));
      const mark = (value, kind) => {
        if (value === null) return;
        svg.append(draw("line", { x1: across(value), x2: across(value), y1: 8, y2: base, class: kind }));
      };
      mark(cosine("cosine", cell), "mean-mark");
      mark(cosine("chance", cell), "chance-mark");
      return svg;
    };

    const extremes = (cell) => {
      const list = make("ul", undefined, { class: "ends" });
      for (const end of (data.ends ?? {})[cell] ?? []) {
        const line = make("li", `${end.which} angle, ${end.angle.toFixed(1)}°, example ${end.example}: ${end.before} `);
        line.append(make("mark", end.token), ` ${end.after}`);
        list.append(line);
      }
      if (!list.children.length) list.append(make("li", data.no_ends ?? "", { class: "note" }));
      return list;
    };

    const tell = (cell) => {
      const title = `${data.students[data.student[cell]]}: ${place(cell)}`;
      const table = make("dl");
      for (const [name, value] of facts(cell)) table.append(make("dt", name), make("dd", value));
      detail.replaceChildren(make("h4", title), table);
      if (data.angle[cell] !== null) detail.append(histogram(cell), extremes(cell));
    };

    let selected = null;
    const select = (node) => {
      if (selected !== null) selected.setAttribute("aria-selected", "false");
      selected = node;
      node.setAttribute("aria-selected", "true");
      tell(Number(node.dataset.c));
    };
    // In a table the arrow keys go from cell to cell, and one cell of it is a stop of the tabulator.
    for (const table of explorer.querySelectorAll("table.cells")) {
      table.setAttribute("role", "grid");
      const cells = [...table.querySelectorAll("td[data-c]")];
      const focusable = (node) => { for (const one of cells) one.tabIndex = one === node ? 0 : -1; };
      if (cells.length) focusable(cells[0]);
      for (const node of cells) {
        const cell = Number(node.dataset.c);
        const told = () => showTip(node, [place(cell), ...facts(cell).map(([name, value]) => `${name}: ${value}`)].join("\n"));
        node.setAttribute("aria-selected", "false");
        node.addEventListener("mouseenter", told);
        node.addEventListener("mouseleave", hideTip);
        node.addEventListener("focus", told);
        node.addEventListener("blur", hideTip);
        node.addEventListener("click", () => { focusable(node); select(node); });
        node.addEventListener("keydown", (event) => {
          const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
          if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            select(node);
          } else if (event.key in moves) {
            event.preventDefault();
            const [down, right] = moves[event.key];
            const row = node.parentNode.parentNode.rows[node.parentNode.rowIndex - 1 + down];
            const next = row?.cells[node.cellIndex + right];
            if (next?.dataset.c !== undefined) {
              focusable(next);
              next.focus();
            }
          }
        });
      }
    }
    // The box is never empty: it holds the first cell, and that of another student once that one is shown.
    const begin = () => {
      const block = blocksOf(explorer).find((one) => one.open && !one.hidden);
      if (block === undefined) return;
      const before = selected?.closest(".student-cells");
      const place = before ? [...before.querySelectorAll("td[data-c]")].indexOf(selected) : -1;
      const cells = [...block.querySelectorAll("td[data-c]")];
      const next = cells[place] ?? cells.find((one) => !one.classList.contains("x"));
      if (next !== undefined && next !== selected) select(next);
    };
    explorer.addEventListener("opened", begin);
    begin();
    detail.hidden = false;
  }
})();
