// The chip: the Verilated RTL as a WebAssembly module, seen through the host port that a board has, too.

const RECORD = 24; // space, address, four words of data
const BATCH = 2048; // records a call
const ROOM = BATCH * RECORD;

// The module imports a terminal that libc would close at its end; nothing is ever written.
const NOTHING = { wasi_snapshot_preview1: { fd_close: () => 8, fd_seek: () => 8, fd_write: () => 8 } };

export class Chip {
  // module: a WebAssembly.Module. header: of the payload.
  constructor(module, header) {
    this.header = header;
    this.space = header.spaces;
    this.control = header.control;
    const instance = new WebAssembly.Instance(module, NOTHING);
    this.f = instance.exports;
    this.f._initialize();
    this.sim = this.f.sim_create(0);
    this.room = this.f.sim_buffer(ROOM);
    this.probeBytes = Number(this.f.sim_probe_bytes());
    this.probeAt = this.f.sim_buffer(this.probeBytes);
  }

  get memory() {
    return this.f.memory;
  }

  // Cycles since reset.
  get cycle() {
    return Number(this.f.sim_cycle(this.sim));
  }

  get running() {
    return this.f.sim_running(this.sim) !== 0;
  }

  get starting() {
    return this.f.sim_token_start(this.sim) !== 0;
  }

  // Passes cycles until a run ends, at most so many; returns how many passed.
  advance(cycles) {
    return this.f.sim_advance(this.sim, cycles);
  }

  // Host writes: [space, address, words of data..]; one cycle each.
  write(records) {
    for (let first = 0; first < records.length; first += BATCH) {
      const batch = records.slice(first, first + BATCH), words = new Uint32Array((batch.length * RECORD) / 4);
      batch.forEach((record, n) => words.set(record, (n * RECORD) / 4));
      this.#write(words);
    }
  }

  #write(words) {
    new Uint32Array(this.memory.buffer, this.room, words.length).set(words);
    this.f.sim_write(this.sim, this.room, BigInt((words.length * 4) / RECORD));
  }

  // The first quads of a slice with deep banks, written into them: by the host port each plane would take a cycle.
  #fill(slice, bytes) {
    const { lanes, planes } = this.header.config, quad = lanes * planes;
    let from = 0;
    this.header.deep[`MEM_${slice}`].forEach((depth, bank) => {
      const part = bytes.subarray(from, from + depth * quad);
      const words = new Uint8Array(this.memory.buffer, this.#bank(`chip.unit_MEM_${slice}.banks.bank${bank}`), part.length);
      for (let at = 0; at < part.length; at += quad) {
        for (let plane = 0; plane < planes; plane++) {
          for (let lane = 0; lane < lanes; lane++) words[at + lane * planes + plane] = part[at + plane * lanes + lane];
        }
      }
      from += depth * quad;
    });
  }

  #bank(scope) {
    const name = new TextEncoder().encode(`${scope}\0`);
    new Uint8Array(this.memory.buffer, this.room, name.length).set(name);
    const place = this.f.sim_bank(this.room);
    if (!place) throw new Error(`the chip has no bank ${scope}`);
    return place;
  }

  // One host read: four words.
  read(space, address) {
    this.f.sim_read(this.sim, space, address, 1n, this.room);
    return Array.from(new Uint32Array(this.memory.buffer, this.room, 4));
  }

  // Writes bytes [quad][plane][lane] to a slice from a quad on.
  writeMem(slice, bytes, quad = 0) {
    const { lanes, planes } = this.header.config;
    const base = this.header.mem_bases[slice] + quad * planes, records = [];
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0, n = 0; at < bytes.length; at += lanes, n++) {
      const record = [this.space.MEM, base + n];
      for (let byte = 0; byte < lanes; byte += 4) record.push(view.getUint32(at + byte, true));
      records.push(record);
    }
    this.write(records);
  }

  // int32 lanes of a quad of a slice, by the host port.
  readLanes(slice, quad) {
    const { lanes, planes } = this.header.config;
    const base = this.header.mem_bases[slice] + quad * planes, values = new Int32Array(lanes);
    for (let plane = 0; plane < planes; plane++) {
      const words = this.read(this.space.MEM, base + plane);
      for (let lane = 0; lane < lanes; lane++) {
        values[lane] |= ((words[lane >> 2] >>> (8 * (lane & 3))) & 255) << (8 * plane);
      }
    }
    return values;
  }

  // Loads a program: queues, tables, SRAM.
  load({ header, section }) {
    for (const queue of header.queues) this.write(queueRecords(this.space.ICU, queue, section));
    const tables = section("tables"), words = new Uint32Array(tables.slice().buffer);
    for (let at = 0; at < words.length; at += ROOM / 4) this.#write(words.subarray(at, at + ROOM / 4));
    for (const slice of Object.keys(header.mem_bases)) {
      if (!header.sections[`image/${slice}`]) continue;
      if (header.deep[`MEM_${slice}`]) this.#fill(slice, section(`image/${slice}`));
      else this.writeMem(slice, section(`image/${slice}`));
    }
    this.write([[this.space.CONTROL, this.control.ERRORS, 0]]);
  }

  // int32 values to the beginning of a tensor, from layer to layer if it has some in each.
  writeTensor(name, values) {
    const { lanes, planes } = this.header.config;
    const [slice, addr, quads, stride] = this.header.symbols[name];
    for (let first = 0, layer = 0; first < values.length; first += quads * lanes, layer++) {
      const part = values.subarray(first, first + quads * lanes);
      const bytes = new Uint8Array(Math.ceil(part.length / lanes) * lanes * planes);
      part.forEach((value, n) => {
        const quad = Math.floor(n / lanes), lane = n % lanes;
        for (let plane = 0; plane < planes; plane++) bytes[(quad * planes + plane) * lanes + lane] = value >> (8 * plane);
      });
      this.writeMem(slice, bytes, addr + layer * stride);
    }
  }

  // The token that the chip chose for a position.
  tokenAt(position) {
    const { lanes } = this.header.config;
    const [slice, addr] = this.header.symbols.tokens;
    return this.readLanes(slice, addr + Math.floor(position / lanes))[position % lanes];
  }

  // The chip's sticky errors by name.
  errors() {
    const bits = this.read(this.space.CONTROL, this.control.ERRORS)[0];
    return Object.entries(this.header.traps).filter(([bit]) => (bits >> bit) & 1).map(([, name]) => name);
  }

  // All probes of the present cycle; a copy.
  probes() {
    this.f.sim_probes(this.sim, this.probeAt);
    return new Uint8Array(this.memory.buffer, this.probeAt, this.probeBytes).slice();
  }
}

// Instruction words, each from its upper host word to part 0, which writes it.
function queueRecords(space, queue, section) {
  const bytes = section(`words/${queue.name}`);
  const words = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const raw = section(`addresses/${queue.name}`);
  const addresses = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  const records = [];
  for (let n = 0; n < queue.words; n++) {
    for (let part = queue.bytes / 16 - 1; part >= 0; part--) {
      const at = n * queue.bytes + 16 * part;
      records.push([space, (addresses.getUint32(4 * n, true) | part) >>> 0,
        ...[0, 4, 8, 12].map((byte) => words.getUint32(at + byte, true))]);
    }
  }
  return records;
}
