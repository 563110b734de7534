// What all figures have in common: colours, marks, axes, frames.
const MARKS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"];
const DASHES = ["solid", "8px,4px", "8px,3px,2px,3px", "2px,3px", "solid", "solid", "solid"];
const SHAPES = { // the marks in a legend, around (13, 6)
  circle: "M13 2a4 4 0 1 0 .01 0z", square: "M9.5 2.5h7v7h-7z", "triangle-up": "M13 1.5l4.6 8h-9.2z",
  diamond: "M13 1l5 5-5 5-5-5z", "triangle-down": "M13 10.5l4.6-8h-9.2z",
  cross: "M11.5 2h3v2.5H17v3h-2.5V10h-3V7.5H9v-3h2.5z", x: "M10 1.5l3 3 3-3 1.5 1.5-3 3 3 3-1.5 1.5-3-3-3 3L8.500 9l3-3-3-3z",
};
const drawings = [];

// A colour of the style sheet as rgb(...), whichever theme is on.
function colour(variable, opacity = 1) {
  const probe = document.body.appendChild(element("i", { style: `color: var(--${variable})` }));
  const [red, green, blue] = getComputedStyle(probe).color.match(/[\d.]+/g);
  probe.remove();
  return `rgba(${red}, ${green}, ${blue}, ${opacity})`;
}

const lookOf = (group) => (group.look === null
  ? { colour: colour("ink"), mark: "diamond", dash: "solid" }
  : { colour: colour(`look${group.look}`), faint: colour(`look${group.look}`, 0.15), mark: MARKS[group.look], dash: DASHES[group.look] });

function axis(title, more = {}) {
  return {
    title: { text: title, standoff: 8, font: { size: 12, color: colour("faint") } },
    gridcolor: colour("grid"), zerolinecolor: colour("line"), linecolor: colour("line"), showline: true,
    tickfont: { size: 11, color: colour("faint") }, automargin: true, fixedrange: false, ...more,
  };
}

function layout(more) {
  const family = getComputedStyle(document.body).fontFamily;
  return {
    margin: { l: 56, r: 14, t: 6, b: 44 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family, size: 12, color: colour("ink") }, showlegend: false, hovermode: "closest",
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger scrolls the page
    hoverlabel: { align: "left", bgcolor: colour("paper"), bordercolor: colour("faint"), font: { family, size: 12.5, color: colour("ink") } },
    ...more,
  };
}

const skip = { hoverinfo: "skip" };
const text = (texts) => ({ hoverinfo: "text", hovertext: texts });
const verticalLine = (x, more) => ({ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, layer: "below", ...more });

// Ticks at the eps that were trained, where they stand apart.
function epsTicks(groups) {
  const values = [...new Set([0, ...groups.map((group) => group.eps)])].sort((a, b) => a - b);
  const width = values[values.length - 1] - values[0];
  const close = values.some((value, k) => k > 0 && value - values[k - 1] < 0.08 * width);
  return values.length > 8 || close ? {} : { tickvals: values, ticktext: values.map(String) };
}

// A frame with a title, a line below it, and a figure that draw() gives: { title, details, data, layout }.
function figure(parent, id, draw, { css = "", head = [] } = {}) {
  const title = element("h3"), details = element("p"), plot = element("div", { class: "plot", role: "img" });
  const frame = element("figure", { id, class: css }, ...head, element("figcaption", {}, title, details), plot);
  document.getElementById(parent).append(frame);
  drawings.push(() => {
    const drawn = draw();
    frame.hidden = drawn === null;
    if (drawn === null) return;
    title.textContent = drawn.title;
    details.textContent = drawn.details;
    plot.setAttribute("aria-label", `${drawn.title}. ${drawn.details}.`);
    if (window.Plotly) Plotly.react(plot, drawn.data, layout(drawn.layout), CONFIG);
  });
}

const CONFIG = {
  responsive: true, displaylogo: false, displayModeBar: "hover",
  modeBarButtons: [["toImage", "resetScale2d"]], toImageButtonOptions: { format: "svg" },
};

function swatch(inner) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 26 12");
  svg.setAttribute("aria-hidden", "true");
  svg.innerHTML = inner; // constants of this file, nothing of the user's
  return svg;
}

const line = (stroke, dash = "", mark = "") =>
  swatch(`<path d="M0 6h26" stroke="${stroke}" stroke-width="2" stroke-dasharray="${dash}"/>${mark && `<path d="${SHAPES[mark]}" fill="${stroke}"/>`}`);
const legend = (id, entries) =>
  document.getElementById(id).replaceChildren(...entries.map(([drawn, words]) => element("span", {}, drawn, words)));

function drawLegend() {
  const groups = drawnGroups();
  const entries = families(groups).map(({ label, look }) => [line(`var(--look${look})`, "", MARKS[look]), label || "smoothed"]);
  if (plainGroup(groups)) entries.push([swatch(`<path d="${SHAPES.diamond}" fill="var(--ink)"/>`), "plain training"]);
  if (groups.some((group) => group.scaled.ece)) entries.push([line("var(--faint)", "5 3"), "after temperature scaling"]);
  if (choice().chosen !== null) entries.push([line("var(--faint)", "1.5 3"), "recommended eps"]);
  legend("legend", entries);
  const { name } = choice();
  document.getElementById("figures-caption").textContent =
    `${capital(DATA.stage)} data, mean over seeds; bands and bars are ${100 * DATA.level} % t intervals.${name ? ` Setting: ${name}.` : ""} Drag to zoom, double-click to return.`;
}
