// Accuracy against ECE, and the front that nobody beats; hollow marks are after temperature scaling.
function setUpPareto() {
  figure("overview", "pareto", pareto);
}

function pareto() {
  const groups = drawnGroups().filter((group) => group.plain.ece && group.plain.acc);
  if (!groups.length) return null;
  const best = front(groups);
  const plain = plainGroup(groups);
  const named = new Set(apart(groups));
  const byLook = [
    ...families(groups),
    ...(plain ? [{ look: null, groups: groups.filter((group) => !group.smooths) }] : []),
  ];
  return {
    title: `${best.length} of ${groups.length} are beaten by none in both accuracy and ECE`,
    details: "labelled by eps; hollow: after temperature scaling; dotted: the front",
    data: [frontLine(best), ...byLook.flatMap((family) => paretoMarks(family, named))],
    layout: { xaxis: axis("ECE %", { zeroline: false }), yaxis: axis("accuracy %", { zeroline: false }) },
  };
}

// Nobody else has at most its ECE and at least its accuracy, and is better in one.
function front(groups) {
  const sorted = [...groups].sort((a, b) => a.plain.ece[0] - b.plain.ece[0] || b.plain.acc[0] - a.plain.acc[0]);
  let highest = -Infinity;
  return sorted.filter((group) => group.plain.acc[0] > highest && ((highest = group.plain.acc[0]), true));
}

const frontLine = (best) => ({
  x: best.map((group) => group.plain.ece[0]),
  y: best.map((group) => group.plain.acc[0]),
  mode: "lines",
  line: { shape: "hv", color: colour("faint"), width: 1.3, dash: "dot" },
  ...skip,
});

// Those whose label does not stand on that of another.
function apart(groups) {
  const place = (group) => [group.plain.ece[0], group.plain.acc[0]];
  const width = [0, 1].map((side) => {
    const values = groups.map((group) => place(group)[side]);
    return Math.max(...values) - Math.min(...values) || 1;
  });
  const near = (a, b) =>
    Math.abs(place(a)[0] - place(b)[0]) < 0.09 * width[0] && Math.abs(place(a)[1] - place(b)[1]) < 0.1 * width[1];
  const first = [...groups].sort((a, b) => (b.number === choice().chosen) - (a.number === choice().chosen));
  return first.reduce((kept, group) => (kept.some((other) => near(group, other)) ? kept : [...kept, group]), []);
}

function paretoMarks({ look, groups }, named) {
  const { colour: paint, mark } = lookOf({ look });
  const bar = (key) => ({
    array: groups.map((group) => group.plain[key][1] ?? 0),
    color: paint,
    thickness: 1,
    width: 0,
  });
  const after = groups.filter((group) => group.scaled.ece);
  const place = (group) => `ECE ${show(DATA.measures[2], group.plain.ece)}`;
  const accuracy = (group) => `accuracy ${show(DATA.measures[0], group.plain.acc)}`;
  return [
    {
      x: after.flatMap((group) => [group.plain.ece[0], group.scaled.ece[0], null]),
      y: after.flatMap((group) => [group.plain.acc[0], group.plain.acc[0], null]),
      mode: "lines",
      line: { color: colour("bar"), width: 1 },
      ...skip,
    },
    {
      x: after.map((group) => group.scaled.ece[0]),
      y: after.map((group) => group.plain.acc[0]),
      mode: "markers",
      marker: { symbol: mark, size: 8, color: colour("paper"), line: { color: paint, width: 1.6 } },
      ...text(
        after.map((group) =>
          hover(
            `${name(group)}, scaled with T = ${fixed(group.T, 2)}`,
            `ECE ${show(DATA.measures[2], group.scaled.ece)}`,
            accuracy(group),
          ),
        ),
      ),
    },
    {
      x: groups.map((group) => group.plain.ece[0]),
      y: groups.map((group) => group.plain.acc[0]),
      mode: "markers+text",
      text: groups.map((group) => (named.has(group) ? String(group.eps) : "")),
      textposition: "top right",
      textfont: { size: 11, color: colour("ink") },
      marker: { symbol: mark, size: 9, color: paint },
      error_x: bar("ece"),
      error_y: bar("acc"),
      ...text(groups.map((group) => hover(name(group), place(group), accuracy(group), seeds(group.n)))),
    },
  ];
}
