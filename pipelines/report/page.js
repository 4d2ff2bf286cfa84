"use strict";

// Tables: a button in each heading sorts by its column; equal rows keep their order, empty cells stay last.
function sortValue(row, column, kind) {
  const cell = row.cells[column];
  if (kind === "text") return cell.textContent.trim();
  const value = cell.dataset.value;
  return value === undefined || value === "" ? null : Number(value);
}

function sortTable(table, column, kind, descending) {
  for (const body of table.tBodies) sortBody(body, column, kind, descending ? -1 : 1);
}

function sortBody(body, column, kind, sign) {
  const own = Array.from(body.rows).filter((row) => !row.classList.contains("block"));
  const rows = own.map((row) => [sortValue(row, column, kind), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (kind === "text" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  });
  body.append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = Array.from(table.tHead.rows[0].cells);
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortTable(table, column, heading.dataset.sort, descending);
    });
  });
}
