// Sort a table by a click on a heading; hide the rows that the filters leave out.
function setUpTables() {
  for (const table of document.querySelectorAll("table[id]")) {
    const rows = [...table.tBodies[0].rows];
    rows.forEach((row, number) => {
      row.dataset.place = number;
    });
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      heading.firstElementChild.addEventListener("click", () => {
        const now = state.sort[table.id];
        const up = now?.column === column ? !now.up : true;
        change({ sort: { ...state.sort, [table.id]: { column, up } } });
      });
    });
    listeners.push(() => sortTable(table, headings, rows));
  }
  listeners.push(filterRows);
}

function sortTable(table, headings, rows) {
  const { column = null, up = true } = state.sort[table.id] ?? {};
  if (column !== null && column >= headings.length) return; // remembered of another sweep
  headings.forEach((heading, number) =>
    heading.setAttribute("aria-sort", number !== column ? "none" : up ? "ascending" : "descending"),
  );
  const place = (row) => Number(row.dataset.place);
  const compare = column === null ? () => 0 : comparing(column, headings[column].classList.contains("number"), up);
  rows.sort((a, b) => compare(a.cells[column], b.cells[column]) || place(a) - place(b));
  table.tBodies[0].append(...rows);
}

// Numbers by value, with what was not measured last; words by the alphabet, with numbers in them by value.
function comparing(column, numeric, up) {
  const sign = up ? 1 : -1;
  if (!numeric) return (a, b) => sign * a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  const value = (cell) => (cell.dataset.value === undefined ? NaN : Number(cell.dataset.value));
  return (a, b) => {
    const [x, y] = [value(a), value(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? Number.isNaN(x) - Number.isNaN(y) : sign * (x - y);
  };
}

function filterRows() {
  for (const row of document.querySelectorAll("tr[data-group]")) {
    const kind = row.classList.contains("scaled") ? "scaled" : "plain";
    const wanted = state.rows === "all" || state.rows === kind || row.closest("#differences");
    row.hidden = !(wanted && isShown(DATA.groups[row.dataset.group]));
  }
}
