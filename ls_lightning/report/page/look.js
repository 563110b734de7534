// What all figures have in common: colours, marks, axes, frames.
const MARKS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"];
const DASHES = ["solid", "8px,4px", "8px,3px,2px,3px", "2px,3px", "solid", "solid", "solid"];
const drawings = [];

// A colour of the style sheet as rgb(...), whichever theme is on.
function colour(variable, opacity = 1) {
  const probe = document.body.appendChild(element("i", { style: `color: var(--${variable})` }));
  const [red, green, blue] = getComputedStyle(probe).color.match(/[\d.]+/g);
  probe.remove();
  return `rgba(${red}, ${green}, ${blue}, ${opacity})`;
}

const lookOf = (group) =>
  group.look === null
    ? { colour: colour("ink"), mark: "diamond", dash: "solid" }
    : {
        colour: colour(`look${group.look}`),
        faint: colour(`look${group.look}`, 0.15),
        mark: MARKS[group.look],
        dash: DASHES[group.look],
      };

function axis(title, more = {}) {
  return {
    title: { text: title, standoff: 8, font: { size: 12, color: colour("faint") } },
    gridcolor: colour("grid"),
    zerolinecolor: colour("line"),
    linecolor: colour("line"),
    showline: true,
    tickfont: { size: 11, color: colour("faint") },
    automargin: true,
    fixedrange: false,
    ...more,
  };
}

function layout(more) {
  const family = getComputedStyle(document.body).fontFamily;
  return {
    margin: { l: 56, r: 14, t: 6, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family, size: 12, color: colour("ink") },
    showlegend: false,
    hovermode: "closest",
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger scrolls the page
    hoverlabel: {
      align: "left",
      bgcolor: colour("paper"),
      bordercolor: colour("faint"),
      font: { family, size: 12.5, color: colour("ink") },
    },
    ...more,
  };
}

const skip = { hoverinfo: "skip" };
const text = (texts) => ({ hoverinfo: "text", hovertext: texts });

// The area around a line, as far as the interval goes.
function band(x, means, halves, fillcolor) {
  const [low, high] = [-1, 1].map((sign) => means.map((mean, k) => mean + sign * halves[k]));
  const y = [...high, ...low.toReversed()];
  return { x: [...x, ...x.toReversed()], y, mode: "none", fill: "toself", fillcolor, ...skip };
}

const verticalLine = (x, more) => ({
  type: "line",
  xref: "x",
  yref: "paper",
  x0: x,
  x1: x,
  y0: 0,
  y1: 1,
  layer: "below",
  ...more,
});

// Ticks at the eps that were trained, where they stand apart.
function epsTicks(groups) {
  const values = [...new Set([0, ...groups.map((group) => group.eps)])].sort((a, b) => a - b);
  const width = values[values.length - 1] - values[0];
  const close = values.some((value, k) => k > 0 && value - values[k - 1] < 0.08 * width);
  return values.length > 8 || close ? {} : { tickvals: values, ticktext: values.map(String) };
}

// A frame with a title, a line below it, and a figure that draw() gives: { title, details, data, layout }.
function figure(parent, id, draw, { css = "", head = [] } = {}) {
  const [title, details] = [element("h3"), element("p")];
  const plot = element("div", { class: "plot", role: "img" });
  const frame = element("figure", { id, class: css }, ...head, element("figcaption", {}, title, details), plot);
  document.getElementById(parent).append(frame);
  drawings.push(() => {
    const drawn = draw();
    frame.hidden = drawn === null;
    if (drawn === null) return;
    title.textContent = drawn.title;
    details.textContent = drawn.details;
    plot.setAttribute("aria-label", `${drawn.title}. ${drawn.details}.`);
    if (window.Plotly) Plotly.react(plot, drawn.data, layout({ width: plot.clientWidth, ...drawn.layout }), CONFIG);
  });
}

const CONFIG = {
  responsive: true,
  displaylogo: false,
  displayModeBar: "hover",
  modeBarButtons: [["toImage", "resetScale2d"]],
  toImageButtonOptions: { format: "svg" },
};
