// llama2.c's tokenizer.bin: text to token ids by its byte-pair merges, and tokens back to bytes.
// The twin of the compiler's own tokenizer; a test compares the two on a thousand texts.

import { HfTokenizer } from "./hf.js";
import { utf8Bytes } from "./payload.js";

const MAGIC_BYTES = 8; // bytes, before a line of JSON and the tokenizer.bin itself
const FIRST_BYTE = 3; // token 3 + b is byte b
const WORST_SCORE = -1e10;

// The tokenizer of a program: llama2.c's, or the JSON of a tokenizer.json that Python has prepared.
export function openTokenizer(image) {
  return image[0] === "{".charCodeAt(0) ? new HfTokenizer(image) : new Tokenizer(image);
}

export class Tokenizer {
  // image: what the compiled program carries.
  constructor(image) {
    const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
    const end = image.indexOf(10, MAGIC_BYTES);
    const header = JSON.parse(binary(image.subarray(MAGIC_BYTES, end)));
    this.bos = header.bos;
    this.stops = header.stops; // tokens that end a text
    this.vocabSize = header.vocab_size;
    this.raw = []; // the bytes of each token, as a binary string
    this.scores = [];
    this.index = new Map();
    let at = end + 1 + 4;
    for (let token = 0; token < this.vocabSize; token++) {
      const there = at < image.length; // the model's vocabulary may be larger
      const length = there ? view.getInt32(at + 4, true) : 0;
      const piece = binary(image.subarray(at + 8, at + 8 + length));
      this.scores.push(there ? view.getFloat32(at, true) : WORST_SCORE);
      this.raw.push(piece);
      if (!this.index.has(piece)) this.index.set(piece, token);
      at += 8 + length;
    }
    this.pieces = this.raw.map(byteValue);
    this.hasBytes = this.vocabSize >= FIRST_BYTE + 256;
    for (let b = 0; b < 256 && this.hasBytes; b++) {
      this.hasBytes = this.pieces[FIRST_BYTE + b] === String.fromCharCode(b);
    }
  }

  // Token ids, BOS first. Throws on a character that no token expresses.
  encode(text) {
    if (!text) return [this.bos];
    const ids = [];
    for (const char of " " + text) ids.push(...this.#encodeChar(char));
    return [this.bos, ...this.#merge(ids)];
  }

  // The bytes that a token adds after another one: no space at the very beginning.
  piece(previous, token) {
    const raw = this.raw[token];
    const piece = previous === this.bos && raw.startsWith(" ") ? raw.slice(1) : this.pieces[token];
    return Uint8Array.from(piece, (char) => char.charCodeAt(0));
  }

  #encodeChar(char) {
    const bytes = utf8Bytes(char);
    const known = this.index.get(binary(bytes));
    if (known !== undefined) return [known];
    if (!this.hasBytes) throw new Error(`the tokenizer has no token for “${char}”: leave it out`);
    return bytes.map((byte) => FIRST_BYTE + byte);
  }

  // Merges the best-scored adjacent pair, the leftmost of equals, until no pair is a token.
  #merge(ids) {
    const tokens = [...ids];
    for (;;) {
      let best = -1, bestScore = WORST_SCORE, merged = -1;
      for (let i = 0; i + 1 < tokens.length; i++) {
        const token = this.index.get(this.raw[tokens[i]] + this.raw[tokens[i + 1]]);
        if (token !== undefined && this.scores[token] > bestScore) {
          best = i;
          bestScore = this.scores[token];
          merged = token;
        }
      }
      if (best < 0) return tokens;
      tokens.splice(best, 2, merged);
    }
  }
}

function binary(bytes) {
  return String.fromCharCode(...bytes);
}

// The byte that a token <0xXX> stands for; any other piece itself.
function byteValue(piece) {
  const match = /^<0x([0-9A-Fa-f]{2})>$/.exec(piece);
  return match ? String.fromCharCode(parseInt(match[1], 16)) : piece;
}
