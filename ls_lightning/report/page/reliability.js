// A reliability diagram: accuracy against confidence in bins, the gap between them, and how many samples a bin has.
function reliability(bins, stage) {
  const [counts, claimed, reached] = bins;
  const total = counts.reduce((sum, n) => sum + n, 0);
  if (!total) return { title: "No samples", details: "", data: [], layout: {} };
  const mean = (values) => counts.reduce((sum, n, k) => sum + (n ? n * values[k] : 0), 0) / total;
  const [claim, share] = [mean(claimed), mean(reached)];
  const error = mean(counts.map((n, k) => Math.abs(claimed[k] - reached[k])));
  const points = 100 * Math.abs(claim - share);
  const samples = `${stage} n\u00a0=\u00a0${total.toLocaleString("en")}`;
  return {
    title: points < 0.05 ? "No gap" : `${claim > share ? "Over" : "Under"}confident by ${fixed(points, 1)} points`,
    details: `ECE ${percent(error)}, accuracy ${percent(share)}, confidence ${percent(claim)}, ${samples}`,
    data: binTraces(counts, claimed, reached, total),
    layout: {
      barmode: "overlay",
      bargap: 0.06,
      xaxis: axis("confidence", { range: [0, 1], zeroline: false, anchor: "y2", dtick: 0.2 }),
      yaxis: axis("accuracy", { range: [0, 1.02], domain: [0.3, 1], zeroline: false, dtick: 0.2 }),
      yaxis2: axis("% of samples", { domain: [0, 0.2], zeroline: false, nticks: 4 }),
      shapes: [
        { type: "line", x0: 0, y0: 0, x1: 1, y1: 1, line: { color: colour("ink"), width: 1, dash: "5px,3px" } },
        meanLine(share, "solid"),
        meanLine(claim, "3px,2px"),
      ],
    },
  };
}

const meanLine = (x, dash) => ({
  type: "line",
  x0: x,
  x1: x,
  yref: "paper",
  y0: 0,
  y1: 0.2,
  line: { color: colour("ink"), width: 1.6, dash },
});

function binTraces(counts, claimed, reached, total) {
  const bins = counts.map((n, k) => ({ n, k, claimed: claimed[k], reached: reached[k] })).filter(({ n }) => n > 0);
  const width = 1 / counts.length;
  const x = (those) => those.map(({ k }) => (k + 0.5) * width);
  const grey = { marker: { color: colour("bar"), line: { color: colour("paper"), width: 1 } } };
  const words = text(bins.map((bin) => binHover(bin, width, total)));
  const accuracy = bins.map((bin) => bin.reached);
  const over = bins.filter((bin) => bin.claimed > bin.reached);
  const under = bins.filter((bin) => bin.claimed < bin.reached);
  return [
    { type: "bar", x: x(bins), y: accuracy, width, ...grey, ...words },
    { x: x(over), width, ...gapBars(over, "over", "/") },
    { x: x(under), width, ...gapBars(under, "under", "\\") },
    { x: x(bins), y: accuracy, cliponaxis: false, ...intervals(bins) },
    { type: "bar", x: x(bins), y: bins.map(({ n }) => (100 * n) / total), width, yaxis: "y2", ...grey, ...words },
  ];
}

const binHover = ({ n, k, claimed, reached }, width, total) =>
  hover(
    `Confidence ${percent(k * width, 0)} to ${percent((k + 1) * width, 0)}`,
    `mean confidence ${percent(claimed)}`,
    `accuracy ${percent(reached)}`,
    `n = ${n.toLocaleString("en")}, ${percent(n / total)}`,
  );

// From the accuracy of a bin to its confidence; hatched, for print and any colour vision.
function gapBars(bins, name, shape) {
  const pattern = { shape, size: 6, solidity: 0.2, fgcolor: colour("paper", 0.75), bgcolor: colour(name) };
  return {
    type: "bar",
    y: bins.map(({ claimed, reached }) => claimed - reached),
    base: bins.map(({ reached }) => reached),
    marker: { line: { width: 0 }, pattern },
    ...skip,
  };
}

function intervals(bins) {
  const bounds = bins.map(({ n, reached }) => wilson(reached, n));
  const ink = colour("ink");
  return {
    mode: "markers",
    marker: { size: 5, color: ink },
    error_y: {
      symmetric: false,
      array: bins.map(({ reached }, k) => bounds[k][1] - reached),
      arrayminus: bins.map(({ reached }, k) => reached - bounds[k][0]),
      color: ink,
      thickness: 1.1,
      width: 0,
    },
    ...skip,
  };
}

// 95 % interval of a share of n samples. Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
function wilson(share, n, z = 1.96) {
  const centre = (share + z ** 2 / (2 * n)) / (1 + z ** 2 / n);
  const half = (z / (1 + z ** 2 / n)) * Math.sqrt((share * (1 - share)) / n + z ** 2 / (4 * n ** 2));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}
