// Three models of the reader's choice: reliability diagrams beside each other, risk-coverage curves on one another.
const selects = [];

function setUpSideBySide() {
  if (DATA.groups.some((group) => group.bins)) {
    for (const slot of [0, 1, 2]) {
      const select = element("select", {
        "aria-label": `Model ${slot + 1} of 3`,
        change: () => choose(slot, select.value),
      });
      selects.push(select);
      figure("reliability", `reliability-${slot}`, () => diagram(slot), { css: "reliability", head: [select] });
    }
    listeners.push(fillSelects);
    const box = (name) => swatch(`<path d="M6 1h14v10h-14z" fill="var(--${name})"/>`);
    legend("reliability-legend", [
      [box("bar"), "accuracy"],
      [box("over"), "overconfident"],
      [box("under"), "underconfident"],
      [line("var(--ink)"), "mean accuracy"],
      [line("var(--ink)", "3 2"), "mean confidence"],
      [
        swatch('<path d="M13 0v12" stroke="var(--ink)"/><circle cx="13" cy="6" r="2.5" fill="var(--ink)"/>'),
        "95 % interval",
      ],
    ]);
  }
  figure("risk", "risk-coverage", () => riskCoverage(shownModels()));
}

function choose(slot, key) {
  change({ panels: state.panels.with(slot, key) });
}

// Every group that is not filtered away, as trained and scaled: key, title, bins and risk.
function models() {
  return drawnGroups()
    .flatMap((group) => [
      { key: `${group.number}`, title: name(group), bins: group.bins, risk: group.risk },
      {
        key: `${group.number} scaled`,
        title: `${name(group)}, scaled with T = ${group.T === null ? "?" : fixed(group.T, 2)}`,
        bins: group.scaledBins,
        risk: group.scaledRisk,
      },
    ])
    .filter(({ bins, risk }) => bins || risk);
}

// Plain training, also after temperature scaling, and the recommended eps, or the best smoothed one.
function shownModels() {
  const { baseline, chosen, asked } = choice();
  const smoothed = chosen === baseline ? asked : chosen;
  const all = models(),
    usual = [`${baseline}`, `${baseline} scaled`, `${smoothed}`];
  const shown = [];
  for (const slot of [0, 1, 2]) {
    const wanted = [state.panels[slot], usual[slot]].map((key) => all.find((one) => one.key === key));
    shown.push(wanted.find(Boolean) ?? all.find((one) => !shown.includes(one)));
  }
  return shown.filter(Boolean);
}

function diagram(slot) {
  const model = shownModels()[slot];
  return model?.bins ? reliability(model.bins, DATA.stage) : null;
}

function fillSelects() {
  const all = models(),
    shown = shownModels();
  selects.forEach((select, slot) => {
    select.replaceChildren(...all.map(({ key, title }) => element("option", { value: key }, title)));
    select.value = shown[slot]?.key ?? "";
  });
}
