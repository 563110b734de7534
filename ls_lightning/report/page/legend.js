// Legends: a small drawing and words for each colour, mark and dash.
// Marks, around (13, 6).
const SHAPES = {
  circle: "M13 2a4 4 0 1 0 .01 0z",
  square: "M9.5 2.5h7v7h-7z",
  "triangle-up": "M13 1.5l4.6 8h-9.2z",
  diamond: "M13 1l5 5-5 5-5-5z",
  "triangle-down": "M13 10.5l4.6-8h-9.2z",
  cross: "M11.5 2h3v2.5H17v3h-2.5V10h-3V7.5H9v-3h2.5z",
  x: "M10 1.5l3 3 3-3 1.5 1.5-3 3 3 3-1.5 1.5-3-3-3 3L8.5 9l3-3-3-3z",
};

function swatch(inner) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 26 12");
  svg.setAttribute("aria-hidden", "true");
  svg.innerHTML = inner; // constants of this file, nothing of the user's
  return svg;
}

const line = (stroke, dash = "", mark = "") =>
  swatch(
    `<path d="M0 6h26" stroke="${stroke}" stroke-width="2" stroke-dasharray="${dash}"/>` +
      (mark && `<path d="${SHAPES[mark]}" fill="${stroke}"/>`),
  );
const legend = (id, entries) =>
  document.getElementById(id).replaceChildren(...entries.map(([drawn, words]) => element("span", {}, drawn, words)));

function drawLegend() {
  const groups = drawnGroups();
  const entries = families(groups).map(({ label, look }) => [
    line(`var(--look${look})`, "", MARKS[look]),
    label || "smoothed",
  ]);
  if (plainGroup(groups)) entries.push([swatch(`<path d="${SHAPES.diamond}" fill="var(--ink)"/>`), "plain training"]);
  if (groups.some((group) => group.scaled.ece))
    entries.push([line("var(--faint)", "5 3"), "after temperature scaling"]);
  if (choice().chosen !== null) entries.push([line("var(--faint)", "1.5 3"), "recommended eps"]);
  legend("legend", entries);
  const setting = choice().name && `Setting: ${choice().name}. `;
  document.getElementById("figures-caption").textContent =
    `${capital(DATA.stage)} data, mean over seeds; bands and bars are ${100 * DATA.level} % t intervals. ` +
    `${setting}Drag to zoom, double-click to return.`;
}
