// The page: joins the chip in its worker, the story, the pictures and the controls.

import { $, make, number, setStyle, still, write } from "./dom.js";
import { Chart } from "./chart.js";
import { ChipView } from "./chipview.js";
import { dataOf } from "./data.js";
import { fieldList, sentence } from "./describe.js";
import { Isa } from "./isa.js";
import { Palette } from "./rows.js";
import { readPayload } from "./payload.js";
import { Player, SPEEDS, startWorker } from "./player.js";
import { Drivers, bursts, segmentOf } from "./schedule.js";
import { StoryView } from "./storyview.js";
import { Tour } from "./tour.js";

const WATCHABLE = 60; // cycles a second up to which the inside is drawn as it runs
const READABLE = 15; // .. and streams carry names
const TOLD = 30; // milliseconds between changes of texts that nobody can read: the chip's and the others in turn
const COUNTED = 200; // .. and of the bars below

class Page {
  constructor(wasm, program) {
    this.payload = readPayload(program);
    this.header = this.payload.header;
    this.isa = new Isa(this.header.isa);
    this.palette = new Palette(this.header);
    this.player = new Player(startWorker());
    this.schedules = new Map();
    this.ready = this.player.call("load", { wasm, program: program.slice() });
    const { header, isa, palette, player } = this;
    this.story = new StoryView({ header, player, onToken: (position) => this.seek(position, 0) });
    const onHover = (what, event, queue) => this.hover(what, event, queue);
    this.chip = new ChipView({ cards: $("cards"), east: $("east"), west: $("west"), header, isa, palette, onHover });
    this.chart = new Chart({
      canvas: $("chart"), overview: $("overview"), header, isa, palette, onHover,
      onPick: (cycle) => this.seek(Math.min(player.view.position, this.last), cycle),
    });
    this.tour = new Tour({
      header, bursts: (position) => this.schedule(position).list, position: () => this.tourPosition(),
      go: (position, cycle) => this.seek(position, cycle),
      play: (position, cycle, speed) => this.playTo(position, cycle, speed),
      frame: (units, look) => this.frame(units, look), token: (position) => this.token(position),
      zoom: (from, to) => (to === Infinity ? this.chart.fit() : this.chart.window(from, to)),
    });
    this.#fill();
    this.#listen();
  }

  bucket(position) {
    return this.header.buckets.find((bucket) => position < bucket.limit);
  }

  // Bursts and drivers of the token at a position.
  schedule(position) {
    const n = this.header.buckets.indexOf(this.bucket(position));
    if (!this.schedules.has(n)) {
      const list = bursts(this.payload, this.isa, n);
      this.schedules.set(n, { bucket: this.header.buckets[n], list, drivers: new Drivers(list, this.isa, this.header) });
    }
    return this.schedules.get(n);
  }

  get last() {
    return this.header.context - 1;
  }

  #fill() {
    const { header } = this;
    $("model").textContent = `${header.name} on ${header.config.name}`;
    $("facts").textContent = `${header.config.lanes} lanes, ${header.config.macs} multipliers, ${number(header.config.sram / 1024)} KiB of SRAM`;
    $("clock").value = header.clock;
    const select = $("operation");
    for (const family of this.palette.families) {
      const labels = header.labels.filter((label) => this.palette.family(label) === family);
      if (!labels.length) continue;
      const group = make("optgroup", { label: family.name });
      group.append(...labels.map((label) => make("option", { value: label }, label)));
      select.append(group);
      $("legend").append(make("li", {}, swatch(family.colour), family.name));
    }
  }

  // --- the story -----------------------------------------------------------------------------------------------------

  async tell() {
    const options = { text: $("prompt").value, temperature: Number($("temperature").value), seed: $("seed").value || "0" };
    try {
      this.say("");
      this.story.begin();
      this.tour.close();
      this.player.speed = Infinity;
      await this.player.begin(options);
      this.paced = null;
      await this.player.play();
    } catch (error) {
      this.say(error.message);
    }
  }

  say(message) {
    $("message").textContent = message;
    $("message").hidden = !message;
  }

  // --- the transport -------------------------------------------------------------------------------------------------

  async guarded(action) {
    try {
      this.say("");
      await action();
    } catch (error) {
      this.say(error.message);
    }
  }

  async seek(position, cycle) {
    const period = this.schedule(Math.min(position, this.last)).bucket.period;
    await this.guarded(() => this.player.seek(position, Math.min(Math.max(cycle, 0), period - 1)));
  }

  async playTo(position, cycle, speed) {
    const { period } = this.schedule(position).bucket;
    await this.guarded(() => this.player.playTo(position, Math.min(cycle, period - 1), speed));
  }

  toggle() {
    return this.guarded(() => (this.player.playing ? this.player.pause() : this.player.play()));
  }

  step(cycles) {
    return this.guarded(() => this.player.step(cycles));
  }

  // To the next burst of the chosen operation behind the present cycle, from the end of a token to the next.
  async jump(direction = 1) {
    const label = $("operation").value, { position, cycle } = this.player.view;
    if (!label) return;
    const starts = this.#begins(label, position);
    const found = direction > 0 ? starts.find((at) => at > cycle) : starts.findLast((at) => at < cycle);
    if (found !== undefined) await this.seek(position, found);
    else if (direction > 0) await this.seek(position + 1, this.#begins(label, position + 1)[0]);
    else if (position > 0) await this.seek(position - 1, this.#begins(label, position - 1).at(-1));
  }

  // Cycles in which an operation begins anew: in each turn of its segment.
  #begins(label, position) {
    const starts = new Map();
    for (const burst of this.schedule(Math.min(position, this.last)).list) {
      const key = `${burst.segment} ${burst.turn}`;
      if (burst.label === label && !starts.has(key)) starts.set(key, burst.first);
    }
    return [...starts.values()];
  }

  tourPosition() {
    const { position } = this.player.view, told = this.story.steps.length;
    const prompt = this.story.steps.findIndex((step) => !step.prompt);
    const least = prompt < 0 ? position : prompt;
    return Math.max(Math.min(position, told - 1), least, 0);
  }

  // What is known of a token: its cycles, and its text if it has been told.
  token(position) {
    const word = this.story.spans[position]?.textContent.trim() ?? "";
    return { period: this.schedule(position).bucket.period, word: word.replace(/[<&]/g, "") };
  }

  frame(units, look = "inside") {
    for (const [queue, card] of this.chip.cards) card.classList.toggle("framed", units.includes(queue));
    const card = this.chip.cards.get(units[0] ?? "VXM"), scroll = card.closest(".scroll");
    const middle = card.getBoundingClientRect().left + card.clientWidth / 2 - scroll.getBoundingClientRect().left;
    scroll.scrollLeft += middle - scroll.clientWidth / 2;
    if (this.tour?.open) {
      const chart = document.querySelector(".schedule").getBoundingClientRect().top - $("tour").offsetHeight - 80;
      const goal = look === "chart" ? chart : $("inside").getBoundingClientRect().top - 8;
      scrollTo({ top: goal + scrollY, behavior: still() ? "auto" : "smooth" });
    }
  }

  // --- what is seen --------------------------------------------------------------------------------------------------

  view(view) {
    const { position, cycle, ended } = view, { playing, speed } = this.player;
    const full = playing && speed > WATCHABLE, now = performance.now();
    const readable = !playing || speed <= READABLE, due = now - (this.told ?? 0) > TOLD;
    if (readable || due) this.told = now;
    if (due) this.odd = !this.odd;
    $("inside").classList.toggle("blurred", full);
    this.story.point(position);
    this.#pace(view);
    if (ended) {
      const { bucket, list, drivers } = this.schedule(Math.max(position - 1, 0));
      write($("where"), "the story is told: choose a word to go back to it");
      this.chart.show(bucket, list);
      this.#use(bucket, list, bucket.period);
      this.chip.show(view, [], drivers);
      this.chip.tell();
    } else {
      if (!full || !this.used) { // at full speed nothing is worked out that nobody can follow
        const { bucket, list, drivers } = this.schedule(position);
        this.chart.show(bucket, list);
        this.chip.show(view, list, drivers);
      }
      if (readable || (due && this.odd)) this.#tell(view, full, now);
      if (!full && (readable || (due && !this.odd))) this.chip.tell();
    }
    this.chart.point(ended || full ? null : cycle, playing);
    if (!full) {
      this.chip.labelled = !playing || speed <= READABLE;
      if (!playing) this.chip.draw(1); // in slow motion every frame draws
    }
    this.mode();
  }

  // In words and figures: where the chip stands, and how busy it is.
  #tell({ position, cycle }, full, now) {
    const bucket = this.bucket(position), at = segmentOf(bucket, cycle);
    const layer = at.turns > 1 ? ` ${at.turn + 1}/${at.turns}` : "";
    write($("where"), `token ${position + 1} · cycle ${number(cycle)} of ${number(bucket.period)}`
      + (at.segment ? ` · ${at.segment}${layer}` : ""));
    if (!full) {
      this.#hovered();
      if (document.activeElement !== $("cycle")) $("cycle").value = cycle;
    }
    if (this.used && (full || (this.player.playing && now - this.counted < COUNTED))) return;
    this.counted = now;
    this.#use(bucket, this.schedule(position).list, full ? bucket.period : cycle);
  }

  #pace(view) {
    const now = performance.now(), cycles = this.story.measured + (view.ended ? 0 : view.cycle);
    if (this.player.full || (this.paced?.open && view.ended)) {
      this.paced ??= { began: now, cycles, tokens: view.position, open: true };
      if (!this.paced.open) this.paced = { began: now, cycles, tokens: view.position, open: true };
      this.story.pace(now - this.paced.began, cycles - this.paced.cycles, view.position - this.paced.tokens);
    }
    if (!this.player.full && this.paced) this.paced.open = false;
  }

  // Bars of how busy units are: in the whole token, and in what of it has passed.
  #use(bucket, list, cycle) {
    if (this.used !== list) {
      this.used = list;
      this.uses = USES.map(([name, engine, queue]) => ({
        name, intervals: list.filter((b) => b.engine === engine && b.queue.startsWith(queue)).map((b) => [b.first, b.last]),
      })).filter((use) => use.intervals.length);
      $("uses").replaceChildren(...this.uses.map((use) => {
        use.total = busy(use.intervals, bucket.period);
        use.bar = make("i", {});
        use.mark = make("b", {});
        use.figure = make("output", {});
        return make("li", {}, make("span", {}, use.name), make("div", {}, use.bar, use.mark), use.figure);
      }));
    }
    for (const use of this.uses) {
      const share = use.total / bucket.period, now = busy(use.intervals, cycle) / bucket.period;
      setStyle(use.bar, "--share", share.toFixed(4));
      setStyle(use.mark, "--share", now.toFixed(4));
      write(use.figure, `${number(100 * share, 0)} %`);
    }
  }

  mode() {
    const { playing, speed, view } = this.player, shown = `${playing} ${speed} ${view?.ended}`;
    if (this.shown === shown) return;
    this.shown = shown;
    document.body.classList.toggle("playing", playing);
    $("play").setAttribute("aria-label", playing ? "Pause" : "Run");
    $("play").title = playing ? "Pause (space)" : "Run (space)";
    $("play").disabled = Boolean(view?.ended);
    $("forward").disabled = Boolean(view?.ended);
    $("speed").value = SPEEDS.findLastIndex((one) => one <= speed);
    write($("speed-text"), speed === Infinity ? "full speed" : `${number(speed)} cycle${speed > 1 ? "s" : ""}/s`);
  }

  // --- what the pointer is on ------------------------------------------------------------------------------------------

  hover(what, event, queue) {
    if ($("inside").classList.contains("blurred")) what = null;
    this.hovering = what ? { what, queue } : queue ? { queue } : null;
    this.chart.mark(what?.op ? what : null);
    this.#hovered();
  }

  #hovered() {
    const box = $("detail");
    if (!this.hovering) {
      box.replaceChildren(make("p", { className: "hint" }, HINT));
      return;
    }
    const { what, queue } = this.hovering;
    if (what?.register) box.replaceChildren(...this.#aboutRegister(what));
    else if (queue) box.replaceChildren(...this.#aboutUnit(queue));
    else box.replaceChildren(...this.#aboutBurst(what));
  }

  #aboutUnit(queue) {
    const working = this.chip.working(queue.name);
    const head = make("h4", {}, queue.title, make("code", {}, queue.name));
    if (!working.length) return [head, make("p", { className: "hint" }, "at rest in this cycle")];
    return [head, ...working.flatMap((burst) => this.#aboutBurst(burst, false))];
  }

  #aboutBurst(burst, titled = true) {
    const { cycle } = this.player.view;
    const element = burst.first <= cycle && cycle <= burst.last && burst.count > 1
      ? `, now element ${Math.floor((cycle - burst.first) / burst.interval) + 1} of ${burst.count}` : "";
    const layer = burst.turns > 1 ? `, ${burst.segment} ${burst.turn + 1} of ${burst.turns}` : `, ${burst.segment}`;
    const title = this.header.queues.find((one) => one.name === burst.queue).title;
    return [
      make("h4", {}, swatch(this.palette.colour(burst.label)), burst.label, make("code", {}, `${burst.op}`)),
      make("p", {}, `${titled ? `The ${title} ` : ""}${sentence(burst, this.header)}.`),
      make("p", { className: "small" }, `cycles ${number(burst.first)}..${number(burst.last)}${element}${layer} · instruction ${burst.pc} of queue ${burst.queue}`),
      make("p", { className: "fields" }, ...fieldList(burst, this.isa).map(([name, value, doc]) =>
        make("span", { title: doc }, `${name} `, make("b", {}, String(value))))),
    ];
  }

  #aboutRegister({ register, dir, position, group }) {
    const name = `${group ? `weight stream ${group}` : "vector stream"} ${dir === "E" ? "eastward" : "westward"}, place ${position}`;
    const head = make("h4", {}, name, make("code", {}, `${dir}[${position}]`));
    if (!register.driven) return [head, make("p", { className: "hint" }, "empty: nobody has driven it")];
    const { source } = register;
    const found = [head];
    if (source) {
      const title = this.header.queues.find((one) => one.name === source.burst.queue).title;
      found.push(make("p", {}, swatch(this.palette.colour(source.burst.label)),
        `${source.burst.label}: driven by the ${title} in cycle ${number(source.cycle)}, `
        + `${source.burst.count > 1 ? `element ${source.element + 1} of ${source.burst.count}` : "a single vector"}`));
    }
    if (register.driven === 15 && !group) {
      found.push(make("p", { className: "lanes" }, ...register.values.map((value) => make("span", {}, number(value)))));
    } else {
      register.bytes.forEach((row, plane) => {
        if ((register.driven >> plane) & 1) found.push(make("p", { className: "lanes" }, ...row.map((value) => make("span", {}, String(value)))));
      });
    }
    found.push(make("p", { className: "small" }, register.driven === 15 && !group ? "one number of 32 bits a lane" : "one byte a lane and plane"));
    return found;
  }

  // --- events ----------------------------------------------------------------------------------------------------------

  #listen() {
    const { player } = this;
    player.addEventListener("step", ({ detail }) => this.guarded(() => this.story.step(detail)));
    player.addEventListener("view", ({ detail }) => this.view(detail));
    player.addEventListener("frame", () => player.speed <= WATCHABLE && this.chip.draw(player.fraction));
    player.addEventListener("mode", () => player.view && this.view(player.view));
    player.addEventListener("broken", ({ detail }) => this.say(detail.message));
    $("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.tell();
    });
    $("temperature").addEventListener("input", () => ($("temperature-text").textContent = Number($("temperature").value).toFixed(1)));
    $("text").addEventListener("click", ({ target }) => target.dataset?.position && this.seek(Number(target.dataset.position), 0));
    $("play").addEventListener("click", () => this.toggle());
    $("back").addEventListener("click", () => this.step(-1));
    $("forward").addEventListener("click", () => this.step(1));
    $("start").addEventListener("click", () => this.#restart());
    $("end").addEventListener("click", () => this.seek(player.view.position + 1, 0));
    $("speed").addEventListener("input", () => this.guarded(() => player.setSpeed(SPEEDS[$("speed").value])));
    $("goto").addEventListener("submit", (event) => {
      event.preventDefault();
      this.seek(player.view.position, Number($("cycle").value));
    });
    $("operation").addEventListener("change", () => this.jump());
    $("next-operation").addEventListener("click", () => this.jump());
    $("previous-operation").addEventListener("click", () => this.jump(-1));
    $("zoom-in").addEventListener("click", () => this.chart.zoom(0.5, this.#centre()));
    $("zoom-out").addEventListener("click", () => this.chart.zoom(2, this.#centre()));
    $("zoom-fit").addEventListener("click", () => this.chart.fit());
    $("tour-open").addEventListener("click", () => this.tour.show(0));
    $("tour-start").addEventListener("click", () => this.tour.show(0));
    $("keys").addEventListener("click", () => $("help").showModal());
    $("help-close").addEventListener("click", () => $("help").close());
    $("theme").addEventListener("click", () => this.#theme());
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  #centre() {
    return this.chart.cursor ?? undefined;
  }

  // To the beginning of this token, or of the one before.
  #restart() {
    const { position, cycle, ended } = this.player.view;
    return this.seek(ended || (cycle === 0 && position > 0) ? position - 1 : position, 0);
  }

  #theme() {
    const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
    document.documentElement.dataset.theme = dark ? "light" : "dark";
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if ($("help").open) return;
    const action = {
      " ": () => this.toggle(), ArrowRight: () => this.step(event.shiftKey ? 10 : 1), ArrowLeft: () => this.step(event.shiftKey ? -10 : -1),
      n: () => this.jump(1), p: () => this.jump(-1), "+": () => this.chart.zoom(0.5, this.#centre()), "-": () => this.chart.zoom(2, this.#centre()),
      f: () => this.chart.fit(), Home: () => this.#restart(), End: () => this.seek(this.player.view.position + 1, 0),
      "[": () => this.#faster(-1), "]": () => this.#faster(1), t: () => this.tour.show(Math.max(this.tour.stop, 0)), "?": () => $("help").showModal(),
      Escape: () => this.tour.close(), PageDown: this.tour.open && (() => this.tour.show(this.tour.stop + 1)),
      PageUp: this.tour.open && (() => this.tour.show(this.tour.stop - 1)), d: () => this.#theme(),
    }[event.key];
    if (!action || (event.key === " " && event.target.tagName === "BUTTON")) return;
    event.preventDefault();
    action();
  }

  #faster(way) {
    const at = SPEEDS.findLastIndex((one) => one <= this.player.speed) + way;
    if (SPEEDS[at]) this.guarded(() => this.player.setSpeed(SPEEDS[at]));
  }
}

const HINT = "Point at a unit, a register or a bar: here stands what it is doing, with addresses and operands.";
const USES = [
  ["matrix unit west", "mac", "MXM_W"], ["matrix unit east", "mac", "MXM_E"], ["vector unit", "alu", "VXM"],
  ["lane switch", "lanes", "SXM_E"], ["memory W0 reads", "read", "MEM_W0"], ["memory W1 reads", "read", "MEM_W1"],
  ["memory E0 reads", "read", "MEM_E0"], ["memory E1 reads", "read", "MEM_E1"],
];

// Cycles before `end` that lie in one of the intervals, which do not overlap.
function busy(intervals, end) {
  return intervals.reduce((total, [first, last]) => total + Math.max(Math.min(last + 1, end) - first, 0), 0);
}

function swatch(colour) {
  const element = make("i", { className: "swatch" });
  element.style.background = colour;
  return element;
}

async function start() {
  const [wasm, program] = await Promise.all([dataOf("chip.wasm"), dataOf("program.bin")]);
  const page = new Page(wasm, program);
  globalThis.page = page; // for a curious reader's console, and for tests
  await page.ready;
  document.body.classList.add("ready");
  page.frame([]);
  await page.tell();
  if (!page.player.view) { // a vocabulary without these letters
    $("prompt").value = "";
    await page.tell();
  }
}

start().catch((error) => {
  $("message").textContent = `The chip does not start: ${error.message}`;
  $("message").hidden = false;
});
