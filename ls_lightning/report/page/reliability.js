// A reliability diagram: accuracy against confidence in bins, the gap between them, and how many samples a bin has.
function reliability(bins, stage) {
  const [counts, claimed, reached] = bins;
  const total = counts.reduce((sum, n) => sum + n, 0);
  if (!total) return { title: "No samples", details: "", data: [], layout: {} };
  const mean = (values) => counts.reduce((sum, n, k) => sum + (n ? n * values[k] : 0), 0) / total;
  const claim = mean(claimed), share = mean(reached);
  const error = mean(counts.map((n, k) => Math.abs(claimed[k] - reached[k])));
  const points = 100 * Math.abs(claim - share);
  return {
    title: points < 0.05 ? "No gap" : `${claim > share ? "Over" : "Under"}confident by ${fixed(points, 1)} points`,
    details: `ECE ${percent(error)}, accuracy ${percent(share)}, confidence ${percent(claim)}, ${stage} n\u00a0=\u00a0${total.toLocaleString("en")}`,
    data: binTraces(counts, claimed, reached, total),
    layout: {
      barmode: "overlay", bargap: 0.06,
      xaxis: axis("confidence", { range: [0, 1], zeroline: false, anchor: "y2", dtick: 0.2 }),
      yaxis: axis("accuracy", { range: [0, 1.02], domain: [0.3, 1], zeroline: false, dtick: 0.2 }),
      yaxis2: axis("% of samples", { domain: [0, 0.2], zeroline: false, nticks: 4 }),
      shapes: [
        { type: "line", x0: 0, y0: 0, x1: 1, y1: 1, line: { color: colour("ink"), width: 1, dash: "5px,3px" } },
        meanLine(share, "solid"), meanLine(claim, "3px,2px"),
      ],
    },
  };
}

const meanLine = (x, dash) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 0.2, line: { color: colour("ink"), width: 1.6, dash } });

function binTraces(counts, claimed, reached, total) {
  const width = 1 / counts.length;
  const used = counts.map((n, k) => k).filter((k) => counts[k] > 0);
  const x = used.map((k) => (k + 0.5) * width);
  const words = text(used.map((k) => hover(
    `Confidence ${percent(k * width, 0)} to ${percent((k + 1) * width, 0)}`,
    `mean confidence ${percent(claimed[k])}`, `accuracy ${percent(reached[k])}`, `n = ${counts[k].toLocaleString("en")}, ${percent(counts[k] / total)}`,
  )));
  const bounds = used.map((k) => wilson(reached[k], counts[k]));
  const gap = (over) => {
    const those = used.filter((k) => (over ? claimed[k] > reached[k] : claimed[k] < reached[k]));
    const paint = colour(over ? "over" : "under");
    return {
      type: "bar", x: those.map((k) => (k + 0.5) * width), y: those.map((k) => claimed[k] - reached[k]), base: those.map((k) => reached[k]), width,
      marker: { color: colour(over ? "over" : "under", 0.6), line: { width: 0 }, pattern: { shape: over ? "/" : "\\", fgcolor: colour("paper", 0.75), bgcolor: paint, size: 6, solidity: 0.2, fillmode: "overlay" } },
      ...skip,
    };
  };
  return [
    { type: "bar", x, y: used.map((k) => reached[k]), width, marker: { color: colour("bar"), line: { color: colour("paper"), width: 1 } }, ...words },
    gap(true), gap(false),
    {
      x, y: used.map((k) => reached[k]), mode: "markers", marker: { size: 5, color: colour("ink") }, cliponaxis: false, ...skip,
      error_y: { symmetric: false, array: used.map((k, i) => bounds[i][1] - reached[k]), arrayminus: used.map((k, i) => reached[k] - bounds[i][0]), color: colour("ink"), thickness: 1.1, width: 0 },
    },
    { type: "bar", x, y: used.map((k) => (100 * counts[k]) / total), width, yaxis: "y2", marker: { color: colour("bar"), line: { color: colour("paper"), width: 1 } }, ...words },
  ];
}

// 95 % interval of a share of n samples. Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
function wilson(share, n, z = 1.96) {
  const centre = (share + z ** 2 / (2 * n)) / (1 + z ** 2 / n);
  const half = (z / (1 + z ** 2 / n)) * Math.sqrt((share * (1 - share)) / n + z ** 2 / (4 * n ** 2));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}
