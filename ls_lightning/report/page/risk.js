// Risk-coverage curves: how many errors are left among the surest samples.
const SLOTS = [
  ["ink", "2px,3px", "2 3"],
  ["look1", "8px,4px", "8 4"],
  ["look0", "solid", ""],
]; // colour, dash

function riskCoverage(shown) {
  const curves = shown.map((one, slot) => ({ ...one, slot })).filter(({ risk }) => risk);
  legend(
    "risk-legend",
    curves.map(({ title, risk, slot }) => [
      line(`var(--${SLOTS[slot][0]})`, SLOTS[slot][2]),
      `${title}: ${percent(at(risk, 1))} errors, ${percent(at(risk, 0.9))} without the least sure tenth`,
    ]),
  );
  if (!curves.length) return null;
  return {
    title: "Errors that are left among the surest answers",
    details:
      "mean over seeds and t interval, of the three above; grey: the best that any order of the answers could do",
    data: [bestPossible(curves[0].risk), ...curves.flatMap(riskLines)],
    layout: {
      xaxis: axis("coverage: share of samples answered, the surest first", { range: [0, 1.005], zeroline: false }),
      yaxis: axis("errors among them, %", { rangemode: "tozero", zeroline: false }),
    },
  };
}

function riskLines({ title, risk: { coverage: place, risk, half }, slot }) {
  const coverage = DATA.coverages[place];
  const [name, dash] = SLOTS[slot];
  const [means, halves] = [risk, half ?? risk.map(() => 0)].map((shares) => shares.map((share) => 100 * share));
  return [
    band(coverage, means, halves, colour(name, 0.12)),
    {
      x: coverage,
      y: means,
      mode: "lines",
      line: { color: colour(name), dash, width: 2 },
      ...text(
        coverage.map((share, k) => hover(title, `the surest ${percent(share, 0)}: ${percent(risk[k], 2)} errors`)),
      ),
    },
  ];
}

// All errors last: none among the first 1 - error of the samples.
function bestPossible({ coverage: place, risk }) {
  const coverage = DATA.coverages[place];
  const error = risk[risk.length - 1];
  return {
    x: coverage,
    y: coverage.map((share) => (100 * Math.max(0, share - (1 - error))) / share),
    mode: "lines",
    line: { color: colour("bar"), width: 1.4 },
    ...text(coverage.map(() => hover("Best possible", "all errors last"))),
  };
}

function at({ coverage: place, risk }, share) {
  const far = DATA.coverages[place].map((value) => Math.abs(value - share));
  return risk[far.indexOf(Math.min(...far))];
}
