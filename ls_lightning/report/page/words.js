// Numbers and names in words. Names come from the user: into the page they go as text, into plotly escaped.
const MINUS = "\u2212";
const fixed = (value, digits) => {
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", MINUS);
};
const signed = (value, digits) => (Number(value.toFixed(digits)) > 0 ? "+" : "") + fixed(value, digits);

// "2.3 +-0.2 %", with the one sign for +-, of an estimate [mean, half of the interval or null].
function show(measure, [mean, half]) {
  const text = (measure.best === "zero" ? signed : fixed)(mean, measure.digits);
  const interval = half === null ? "" : ` \u00b1${fixed(half, measure.digits)}`;
  return text + interval + (measure.unit ? ` ${measure.unit}` : "");
}

function name(group, groups = drawnGroups()) {
  if (!group.smooths) return "plain training";
  return severalLosses(groups.filter((other) => other.smooths)) ? `${group.loss}, ${group.label}` : group.label;
}

const seeds = (n) => `${n} seed${n === 1 ? "" : "s"}`;
const percent = (share, digits = 1) => `${fixed(100 * share, digits)} %`;
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const plotlyText = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const hover = (title, ...lines) => [`<b>${plotlyText(title)}</b>`, ...lines.map(plotlyText)].join("<br>");

// An element with its attributes and children; strings become text.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (typeof value === "boolean") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}
