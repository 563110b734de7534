// eps of the optimizer steps, the first seed of each group.
const MOST_CURVES = 60;

function setUpOverTraining() {
  figure("overview", "over-training", overTraining);
}

function overTraining() {
  const all = drawnGroups().filter((group) => group.epsCurve && group.smooths);
  if (!all.length) return null;
  const chosen = choice().chosen;
  const groups = all.slice(0, MOST_CURVES);
  if (all.some((group) => group.number === chosen) && !groups.some((group) => group.number === chosen))
    groups.push(DATA.groups[chosen]);
  const recommended = groups.find((group) => group.number === chosen);
  const left = all.length - groups.length;
  const bold = recommended ? "; bold: recommended" : "";
  const more = left ? `; ${left} more than fit: filter to see them` : "";
  return {
    title: recommended ? `${name(recommended)}: from ${ends(recommended)}` : "Eps over training",
    details: `eps of every optimizer step, first seed${bold}${more}`,
    data: groups.map(epsCurve),
    layout: {
      xaxis: axis("optimizer step", { zeroline: false }),
      yaxis: axis("eps", {
        rangemode: groups.every((group) => group.eps >= 0) ? "tozero" : "normal",
        ...epsTicks(groups),
      }),
    },
  };
}

const ends = ({ epsCurve: [, values] }) =>
  `${Number(values[0].toFixed(3))} to ${Number(values[values.length - 1].toFixed(3))}`;

function epsCurve(group) {
  const [steps, values] = group.epsCurve;
  const { colour: line, dash } = lookOf(group);
  return {
    x: steps,
    y: values,
    mode: "lines",
    line: { color: line, dash, width: group.number === choice().chosen ? 3.2 : 1.5 },
    ...text(steps.map((step, k) => hover(name(group), `step ${step}: eps ${Number(values[k].toPrecision(3))}`))),
  };
}
