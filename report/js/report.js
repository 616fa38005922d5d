// The page of `tsp report`: the schedule of a token, to be looked at closely.

import { Chart } from "./chart.js";
import { dataOf } from "./data.js";
import { fieldList, sentence } from "./describe.js";
import { Isa } from "./isa.js";
import { readPayload } from "./payload.js";
import { Palette } from "./rows.js";
import { bursts } from "./schedule.js";

const ask = (id) => document.getElementById(id);

function element(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}

const payload = readPayload(await dataOf("schedule.bin"));
const { header } = payload;
const isa = new Isa(header.isa), palette = new Palette(header), lists = new Map();
const chart = new Chart({ canvas: ask("chart"), overview: ask("overview"), header, isa, palette, onHover: describe });

function show(number) {
  if (!lists.has(number)) lists.set(number, bursts(payload, isa, number));
  chart.show(header.buckets[number], lists.get(number));
  chart.draw();
}

function describe(burst) {
  chart.mark(burst);
  const box = ask("detail");
  if (!burst) return;
  const queue = header.queues.find((one) => one.name === burst.queue);
  box.replaceChildren(
    element("b", `${burst.label}: `), `the ${queue.title} ${sentence(burst, header)}.`, element("br"),
    `cycles ${burst.first}..${burst.last}, ${burst.segment}${burst.turns > 1 ? ` ${burst.turn + 1} of ${burst.turns}` : ""}, `
    + `instruction ${burst.pc} of queue ${burst.queue}: ${burst.op} `
    + fieldList(burst, isa).map(([name, value]) => `${name} ${value}`).join(", "));
}

ask("bucket").addEventListener("change", () => show(Number(ask("bucket").value)));
ask("zoom-in").addEventListener("click", () => chart.zoom(0.5));
ask("zoom-out").addEventListener("click", () => chart.zoom(2));
ask("zoom-fit").addEventListener("click", () => chart.fit());
for (const button of document.querySelectorAll("[data-segment]")) {
  button.addEventListener("click", () => {
    const segment = chart.bucket.segments.find((one) => one.name === button.dataset.segment);
    chart.window(segment.start, segment.start + segment.length);
  });
}
for (const family of palette.families) {
  const swatch = element("i");
  swatch.style.background = family.colour;
  if (header.labels.some((label) => palette.family(label) === family)) ask("legend").append(element("li", swatch, family.name));
}
show(Number(ask("bucket").value));
