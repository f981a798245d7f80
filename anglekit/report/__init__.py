"""The report: results as one self-contained HTML page, and how a notebook shows them."""
