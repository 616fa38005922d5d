// Reads what page/payload.py wrote: a JSON header and raw sections.

const MAGIC = "TSPPAGE1";

export function readPayload(bytes) {
  const magic = String.fromCharCode(...bytes.subarray(0, 8));
  if (magic !== MAGIC) throw new Error(`the program's first bytes must be ${MAGIC}, not ${magic}`);
  const size = new DataView(bytes.buffer, bytes.byteOffset).getUint32(8, true);
  const header = JSON.parse(utf8Text(bytes.subarray(12, 12 + size)));
  const begin = 12 + size;
  const section = (name) => {
    const [at, length] = header.sections[name];
    return bytes.subarray(begin + at, begin + at + length);
  };
  return { header, section };
}

// UTF-8 to text, broken sequences to U+FFFD, one each byte that cannot belong to a character.
export function utf8Text(bytes) {
  const decoder = new Utf8Stream();
  return decoder.push(bytes) + decoder.end();
}

// UTF-8 in pieces of bytes, which may end inside a character: what is whole comes out, the rest waits.
export class Utf8Stream {
  constructor() {
    this.waiting = [];
  }

  push(bytes) {
    let text = "";
    for (const byte of bytes) text += this.#take(byte);
    return text;
  }

  end() {
    const text = this.waiting.length ? "\ufffd" : "";
    this.waiting = [];
    return text;
  }

  #take(byte) {
    const w = this.waiting;
    if (!w.length) {
      if (byte < 0x80) return String.fromCharCode(byte);
      if (byte < 0xc2 || byte > 0xf4) return "\ufffd";
      w.push(byte);
      return "";
    }
    const [low, high] = w.length === 1 ? second(w[0]) : [0x80, 0xbf];
    if (byte < low || byte > high) {
      this.waiting = [];
      return "\ufffd" + this.#take(byte);
    }
    w.push(byte);
    const wanted = w[0] < 0xe0 ? 2 : w[0] < 0xf0 ? 3 : 4;
    if (w.length < wanted) return "";
    this.waiting = [];
    let point = w[0] & (0x7f >> wanted);
    for (const next of w.slice(1)) point = (point << 6) | (next & 0x3f);
    return String.fromCodePoint(point);
  }
}

// What may follow a first byte: no overlong forms, no surrogates, nothing beyond U+10FFFF.
function second(first) {
  if (first === 0xe0) return [0xa0, 0xbf];
  if (first === 0xed) return [0x80, 0x9f];
  if (first === 0xf0) return [0x90, 0xbf];
  if (first === 0xf4) return [0x80, 0x8f];
  return [0x80, 0xbf];
}

export function utf8Bytes(text) {
  const bytes = [];
  for (const char of text) {
    const point = char.codePointAt(0);
    if (point < 0x80) bytes.push(point);
    else if (point < 0x800) bytes.push(0xc0 | (point >> 6), 0x80 | (point & 63));
    else if (point < 0x10000) bytes.push(0xe0 | (point >> 12), 0x80 | ((point >> 6) & 63), 0x80 | (point & 63));
    else bytes.push(0xf0 | (point >> 18), 0x80 | ((point >> 12) & 63), 0x80 | ((point >> 6) & 63), 0x80 | (point & 63));
  }
  return bytes;
}
