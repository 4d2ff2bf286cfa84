"use strict";

// Tables: a button in each heading sorts by its column; equal rows keep their order, empty cells stay last.
function sortValue(row, column, kind) {
  const cell = row.cells[column];
  if (kind === "text") return cell.textContent.trim();
  const value = cell.dataset.value;
  return value === undefined || value === "" ? null : Number(value);
}

function sortTable(table, column, kind, descending) {
  const body = table.tBodies[0];
  const sign = descending ? -1 : 1;
  const rows = Array.from(body.rows, (row) => [sortValue(row, column, kind), row]);
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

// Galleries: by outcome and by class, with or without boxes.
for (const gallery of document.querySelectorAll(".gallery")) {
  const form = gallery.querySelector("form");
  const cards = Array.from(gallery.querySelectorAll(".card"));
  const show = () => {
    const outcome = form.querySelector("input[type=radio]:checked").value;
    const label = form.elements["class"].value;
    let shown = 0;
    for (const card of cards) {
      card.hidden = (outcome && card.dataset.outcome !== outcome) || (label && !card.dataset.class.split(" ").includes(label));
      shown += card.hidden ? 0 : 1;
    }
    gallery.classList.toggle("without-boxes", !form.elements["boxes"].checked);
    form.querySelector("output").textContent = `${shown} of ${cards.length} clips shown`;
  };
  form.hidden = false;
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show(); // a browser may have kept the choices of an earlier visit
}
