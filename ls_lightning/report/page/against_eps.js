// Accuracy, NLL, ECE and gap against eps: a line for each loss and schedule, beginning at plain training.
const MOST = { high: "highest", low: "lowest", zero: "smallest" };

function setUpAgainstEps() {
  for (const measure of DATA.measures) figure("against-eps", `against-eps-${measure.key}`, () => againstEps(measure));
}

function againstEps(measure) {
  const groups = drawnGroups().filter((group) => group.plain[measure.key]);
  if (!groups.length) return null;
  const plain = plainGroup(groups);
  const lines = families(groups).flatMap((family) => familyLines(family, plain, measure));
  const chosen = DATA.groups[choice().chosen];
  const shapes = chosen
    ? [verticalLine(chosen.eps, { line: { color: colour("faint"), width: 1.2, dash: "dot" } })]
    : [];
  return {
    ...finding(groups, measure),
    data: plain ? [...lines, plainPoint(plain, measure)] : lines,
    layout: {
      shapes,
      xaxis: axis("eps", { zeroline: false, ...epsTicks(groups) }),
      yaxis: axis(measure.key === "gap" ? "mean confidence \u2212 accuracy, %" : measure.header, {
        zeroline: measure.best === "zero",
        zerolinecolor: colour("faint"),
      }),
    },
  };
}

function familyLines({ groups, look }, plain, measure) {
  const members = plain && groups[0].plainAtZero ? [plain, ...groups] : groups;
  const { colour: line, faint, mark } = lookOf({ look });
  const eps = members.map((group) => group.eps);
  const means = members.map((group) => group.plain[measure.key][0]);
  const halves = members.map((group) => group.plain[measure.key][1] ?? 0);
  const drawn = {
    x: eps,
    y: means,
    mode: "lines+markers",
    line: { color: line, width: 2 },
    marker: { symbol: mark, size: 8, color: line },
    ...text(members.map((group) => epsHover(group, "plain", measure))),
  };
  const after = members.filter((group) => group.scaled[measure.key]);
  const around = band(eps, means, halves, faint);
  if (measure.best === "high" || !after.length) return [around, drawn]; // accuracy stays what it is
  const scaled = {
    x: after.map((group) => group.eps),
    y: after.map((group) => group.scaled[measure.key][0]),
    mode: "lines",
    line: { color: line, width: 1.4, dash: "5px,3px" },
    ...text(after.map((group) => epsHover(group, "scaled", measure))),
  };
  return [around, scaled, drawn];
}

function plainPoint(plain, measure) {
  const [mean, half] = plain.plain[measure.key];
  return {
    x: [plain.eps],
    y: [mean],
    mode: "markers",
    marker: { symbol: "diamond", size: 10, color: colour("ink") },
    error_y: { array: [half ?? 0], color: colour("ink"), thickness: 1.4, width: 4 },
    ...text([epsHover(plain, "plain", measure)]),
  };
}

function epsHover(group, kind, measure) {
  const scaled = kind === "scaled" ? `, scaled with T = ${fixed(group.T, 2)}` : "";
  return hover(name(group) + scaled, `${measure.label} ${show(measure, group[kind][measure.key])}`, seeds(group.n));
}

function finding(groups, measure) {
  const mean = (group) => group.plain[measure.key][0];
  const cost = { high: (group) => -mean(group), low: mean, zero: (group) => Math.abs(mean(group)) }[measure.best];
  const best = groups.reduce((a, b) => (cost(b) < cost(a) ? b : a));
  return {
    title: `${capital(MOST[measure.best])} ${measure.label}: ${show(measure, [mean(best), null])}`,
    details: `at ${name(best)}`,
  };
}
