// What the page knows (DATA), what the reader chose (state), and who is told when a choice changes.
const NONCE = document.currentScript.nonce;
const DATA = JSON.parse(document.getElementById("data").textContent);
DATA.groups.forEach((group, number) => {
  group.number = number;
});

const MEMORY = `ls-report ${location.pathname}`;
const state = {
  setting: null, // number of a setting; null shows all in the tables, and the first in figures
  hidden: { loss: [], schedule: [], plain: false },
  rows: "all", // or "plain", "scaled"
  sort: {}, // by the id of a table: column and direction
  panels: [null, null, null], // what stands side by side; null for the usual
  theme: "auto",
  reload: true,
  ...recall(),
};
const listeners = [];

function recall() {
  try {
    return JSON.parse(sessionStorage.getItem(MEMORY)) ?? {};
  } catch {
    return {}; // a browser that stores nothing for files
  }
}

function change(changes) {
  Object.assign(state, changes);
  try {
    sessionStorage.setItem(MEMORY, JSON.stringify(state));
  } catch {
    /* then the next page begins anew */
  }
  for (const listener of listeners) listener(changes);
}

// Plain training is what the others are compared with: it has a switch of its own.
function isShown(group) {
  if (state.setting !== null && group.setting !== state.setting) return false;
  if (!group.smooths) return !state.hidden.plain;
  return !state.hidden.loss.includes(group.loss) && !state.hidden.schedule.includes(group.schedule);
}

const figureSetting = () => state.setting ?? 0;
const drawnGroups = () => DATA.groups.filter((group) => group.setting === figureSetting() && isShown(group));
const choice = () => DATA.settings[figureSetting()];
const plainGroup = (groups) =>
  groups.filter((group) => !group.smooths).reduce((best, group) => (best && best.n >= group.n ? best : group), null);
const severalLosses = (groups) => new Set(groups.map((group) => group.loss)).size > 1;

// Groups of one loss and schedule, by eps: a line in every figure.
function families(groups) {
  const found = new Map();
  for (const group of groups.filter((group) => group.smooths)) {
    const key = JSON.stringify([group.loss, group.schedule]);
    if (!found.has(key)) found.set(key, { label: group.family, look: group.look, groups: [] });
    found.get(key).groups.push(group);
  }
  for (const family of found.values()) family.groups.sort((a, b) => a.eps - b.eps);
  return [...found.values()];
}
