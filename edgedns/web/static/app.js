// The plot, and the buttons beside moved rows. Everything else on the page is htmx and HTML.
"use strict";

const STEP = 2000;
const plotAt = document.getElementById("plot");
let plot = null;
let shown = "";
let notes = [];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const clock = (at) => new Date(at * 1000).toISOString().slice(11, 19); // UTC, as everywhere on the page

function options(names, places) {
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font };
  return {
    width: plotAt.clientWidth,
    height: plotAt.clientHeight - 40,
    scales: { y: { range: (u, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [{ ...axis, space: 80, values: (u, ticks) => ticks.map(clock) }, { ...axis, size: 40 }],
    series: [
      { label: "UTC", value: (u, at) => (at == null ? "–" : clock(at)) },
      ...names.map((name) => ({
        label: name, stroke: colour("--p" + places[name]), width: 1.5, points: { show: false },
        value: (u, v) => (v == null ? "–" : v.toFixed(1)),
      })),
    ],
    hooks: { draw: [drawNotes] },
  };
}

// A thin line where something was told to have happened.
function drawNotes(u) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = colour("--note");
  ctx.setLineDash([3, 3]);
  for (const note of notes) {
    const x = Math.round(u.valToPos(note.at, "x", true)) + 0.5;
    if (x > bbox.left && x < bbox.left + bbox.width) {
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
  }
  ctx.restore();
}

async function draw() {
  const reply = await fetch("/page/history.json");
  if (!reply.ok) return;
  const history = await reply.json();
  const names = Object.keys(history.rates);
  const columns = [history.at, ...names.map((name) => history.rates[name])];
  notes = history.notes.filter((note) => note.kind !== "return");
  if (plot && shown === names.join()) {
    plot.setData(columns);
    return;
  }
  if (plot) plot.destroy();
  shown = names.join();
  plot = new uPlot(options(names, history.colours), columns, plotAt);
}

function redraw() {
  shown = "";
  return draw().catch(() => {}); // the server is gone for now: the plot stays as it is
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy) {
    navigator.clipboard.writeText(button.dataset.copy).then(() => {
      const text = button.textContent;
      button.textContent = "copied";
      setTimeout(() => (button.textContent = text), 1200);
    });
  } else if (button.dataset.from) {
    const form = document.querySelector(".ask form");
    for (const key of ["name", "type", "from"]) form.elements[key].value = button.dataset[key];
    form.elements.subnet.value = "";
    form.requestSubmit();
    form.scrollIntoView({ block: "nearest" });
  }
});

addEventListener("resize", () => plot && plot.setSize({ width: plotAt.clientWidth, height: plotAt.clientHeight - 40 }));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
setInterval(() => draw().catch(() => {}), STEP);
redraw();
