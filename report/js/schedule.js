// What every unit does in every cycle of a token, read from the instruction words that the chip itself fetches.

const ICU = new Set(["NOP", "LOOP", "END_LOOP", "SYNC"]);

// All bursts of one bucket's token, in order of their first cycle, each
// {queue, unit, position, engine, op, pc, instr, label, mark, first, last, count, interval, segment, turn, offset, reach}.
// Cycles count from the start pulse; offset: quads that loops add to relative addresses; reach: by direction, the last
// position where somebody takes what the burst drives, -1 if nobody does.
export function bursts(payload, isa, number) {
  const { header } = payload;
  const bucket = header.buckets[number];
  const found = header.queues.flatMap((queue) => issue(payload, isa, queue, number));
  for (const burst of found) Object.assign(burst, segmentOf(bucket, burst.first));
  return found.sort((a, b) => a.first - b.first || a.position - b.position);
}

// The bursts of a queue, loops unrolled.
function issue(payload, isa, queue, number) {
  const bytes = payload.section(`words/${queue.name}`), marks = payload.section(`marks/${queue.name}`);
  const reach = payload.section(`reach/${queue.name}`);
  const known = new Map();
  const at = (pc) => {
    if (!known.has(pc)) known.set(pc, isa.decode(bytes.subarray(pc * queue.bytes, (pc + 1) * queue.bytes), queue.unit));
    return known.get(pc);
  };
  const found = [], loops = [];
  let pc = queue.starts[number], cycle = isa.time.START;
  for (;;) {
    const instr = at(pc);
    if (instr.op === "SYNC") return found;
    if (!ICU.has(instr.op)) {
      const burst = burstOf(payload.header, isa, queue, pc, instr, cycle, marks[pc], loops);
      burst.reach = { E: reach[2 * pc] - 1, W: reach[2 * pc + 1] - 1 };
      found.push(burst);
    }
    cycle += instr.delay;
    pc++;
    if (instr.op === "LOOP") loops.push({ body: pc, left: instr.count, offset: 0, stride: instr.stride });
    if (instr.op === "END_LOOP") {
      const loop = loops.at(-1);
      if (--loop.left) {
        loop.offset += loop.stride;
        pc = loop.body;
      } else loops.pop();
    }
  }
}

function burstOf(header, isa, queue, pc, instr, cycle, mark, loops) {
  const count = instr.op === "MAC" ? instr.acts * instr.accs : (instr.count ?? 1);
  const interval = instr.interval ?? 1;
  const first = cycle + isa.time.ENGINE;
  let offset = 0;
  loops.forEach((loop, k) => {
    if (instr.rel !== undefined && (instr.rel >> k) & 1) offset += loop.offset;
  });
  return {
    queue: queue.name, unit: queue.unit, position: queue.position, engine: instr.engine, op: instr.op, pc, instr, mark,
    label: header.labels[mark - 1], first, last: first + (count - 1) * interval, count, interval, offset,
  };
}

// The segment that a cycle belongs to, and which turn of it.
export function segmentOf(bucket, cycle) {
  for (const segment of bucket.segments) {
    const turn = Math.floor((cycle - segment.start) / segment.length);
    if (turn >= 0 && turn < segment.turns) return { segment: segment.name, turn, turns: segment.turns };
  }
  return { segment: "", turn: 0, turns: 1 };
}

// What a burst drives: {dir, group, latency: cycles from an element's own to its drive, once: only after the last}.
export function drives(burst, isa, header) {
  const { instr } = burst, { time } = isa, late = header.config.fold - 1;
  const inward = burst.position > header.config.vxm ? "W" : "E", outward = inward === "W" ? "E" : "W";
  switch (burst.op) {
    case "READ":
      return [instr.weights ? { dir: outward, group: instr.weights, latency: time.MEM_READ }
        : { dir: instr.dir, group: 0, latency: time.MEM_READ }];
    case "DRAIN":
      return [{ dir: inward, group: 0, latency: time.MXM_DRAIN }];
    case "RECEIVE":
      return [{ dir: inward, group: 0, latency: time.C2C_RECEIVE }];
    case "PERMUTE": case "SHIFT": case "REDUCE": case "TRANSPOSE_OUT":
      return [{ dir: inward, group: 0, latency: time.SXM_DRIVE }];
    case "ALU": {
      const found = [];
      if (instr.dst_e) found.push({ dir: "E", group: 0, latency: time.VXM_DRIVE + late });
      if (instr.dst_w) found.push({ dir: "W", group: 0, latency: time.VXM_DRIVE + late });
      if (instr.red !== "NONE" && instr.red_e) {
        found.push({ dir: "E", group: 0, latency: time.VXM_REDUCE_DRIVE + late, once: true });
      }
      return found;
    }
    default:
      return [];
  }
}

// The cycles in which a burst drives through `drive`, first and last; the value moves on one position a cycle behind.
export function driveSpan(burst, drive) {
  const lastElement = burst.first + (burst.count - 1) * burst.interval;
  return [(drive.once ? lastElement : burst.first) + drive.latency, lastElement + drive.latency];
}

// Who drove what stands in a register: a table by direction, group, position and cycle of the drive.
export class Drivers {
  constructor(list, isa, header) {
    Object.assign(this, { list, isa, header });
    this.table = null; // until somebody asks
  }

  #fill() {
    const { list, isa, header } = this;
    this.table = new Map();
    for (const burst of list) {
      for (const drive of drives(burst, isa, header)) {
        const [first, last] = driveSpan(burst, drive);
        for (let cycle = first, n = drive.once ? burst.count - 1 : 0; cycle <= last; cycle += burst.interval, n++) {
          this.table.set(key(drive.dir, drive.group, burst.position, cycle), { burst, element: n, cycle });
        }
      }
    }
  }

  // The last unit that drove the value in register `position` of a direction and group, in a cycle; null if none did.
  of(dir, group, position, cycle) {
    const step = dir === "E" ? -1 : 1;
    if (!this.table) this.#fill();
    for (let from = position + step, hops = 1; from >= 0 && from < this.header.config.positions; from += step, hops++) {
      const found = this.table.get(key(dir, group, from, cycle - hops));
      if (found) return found;
    }
    return null;
  }
}

function key(dir, group, position, cycle) {
  return ((cycle * 8 + position) * 2 + (dir === "E" ? 0 : 1)) * 4 + group;
}
