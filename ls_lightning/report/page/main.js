// Tables and switches at once; figures as soon as plotly.js is unpacked.
async function loadPlotly() {
  const packed = document.getElementById("plotly");
  const bytes = Uint8Array.from(atob(packed.textContent), (character) => character.charCodeAt(0));
  packed.remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(element("script", { nonce: NONCE }, await new Response(stream).text()));
}

const NOT_DRAWN = ["sort", "rows", "reload"]; // choices that figures do not show

function draw() {
  drawLegend();
  for (const drawing of drawings) drawing();
}

// Paper is white, and narrower than most screens.
function setUpPrint() {
  const paper = (on) => {
    document.documentElement.classList.toggle("paper", on);
    draw();
  };
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
}

document.documentElement.classList.add("js");
setUpTables();
setUpFilters();
setUpTheme();
setUpReload();
if (DATA.groups.length) {
  setUpAgainstEps();
  setUpPareto();
  setUpOverTraining();
  setUpSideBySide();
  listeners.push((changes) => {
    if (!NOT_DRAWN.some((key) => key in changes)) draw();
  });
  setUpPrint();
}
change({});
loadPlotly()
  .then(draw, (error) => {
    document.getElementById("figures-caption").textContent =
      `The figures need a browser of 2023 or later (${error.message}).`;
  })
  .finally(() => {
    document.documentElement.dataset.ready = "true";
  });
