// A Hugging Face tokenizer.json, as page/tokenizer.py prepares it: added tokens, normalizers, pre-tokenizers, and a model
// that makes a word's tokens.

import { BpeModel } from "./bpe.js";
import { utf8Text } from "./payload.js";
import { normalized, splitAgain } from "./texts.js";
import { UnigramModel, WordLevelModel, WordPieceModel } from "./wordmodels.js";

const LONE = /[\ud800-\udfff]/gu; // half of a character
const SPACES_AFTER = /^[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*/u;
const SPACES_BEFORE = /[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$/u;
const MODELS = { BPE: BpeModel, Unigram: UnigramModel, WordPiece: WordPieceModel, WordLevel: WordLevelModel };

export class HfTokenizer {
  // image: the JSON of page/tokenizer.py.
  constructor(image) {
    const spec = JSON.parse(utf8Text(image));
    this.bos = spec.bos;
    this.stops = spec.stops; // tokens that end a text
    this.addsBos = spec.adds_bos;
    this.normalizers = spec.normalizers;
    this.preTokenizers = spec.pre_tokenizers;
    this.model = new MODELS[spec.model.type](spec.model);
    this.first = new Map(spec.first); // pieces that differ at the beginning of a text
    this.restarts = new Set(spec.restarts); // tokens after which a text begins anew
    this.pieces = spec.pieces; // bytes of each token, as a binary string
    this.raw = new AddedTokens(spec.added.filter((token) => !token.normalized));
    this.normalized = new AddedTokens(spec.added.filter((token) => token.normalized));
  }

  // Token ids, BOS first where the tokenizer adds it; BOS alone for an empty text. Throws on a text that no tokens
  // express.
  encode(text) {
    const ids = this.addsBos ? [this.bos] : [];
    for (const part of this.raw.split(text.replace(LONE, "\ufffd"))) {
      if (part.token !== undefined) ids.push(part.token);
      else this.#encodePart(part, ids);
    }
    return ids.length ? ids : [this.bos];
  }

  // The bytes that a token adds after another one; after BOS or null it begins the text.
  piece(previous, token) {
    const begins = previous === null || previous === this.bos || this.restarts.has(previous);
    const piece = (begins ? this.first.get(token) : undefined) ?? this.pieces[token] ?? "";
    return Uint8Array.from(piece, (char) => char.charCodeAt(0));
  }

  #encodePart(part, ids) {
    const text = this.normalizers.reduce(normalized, part.text);
    for (const inner of this.normalized.split(text)) {
      if (inner.token !== undefined) {
        ids.push(inner.token);
        continue;
      }
      let words = [{ text: inner.text, starts: part.starts && inner.starts }];
      for (const step of this.preTokenizers) words = words.flatMap((word) => splitAgain(word, step));
      for (const word of words) if (word.text) for (const id of this.model.tokens(word.text)) ids.push(id);
    }
  }
}

// Tokens that are split off before anything else: the leftmost first, of those the longest.
class AddedTokens {
  constructor(tokens) {
    const longest = [...tokens].sort((a, b) => b.text.length - a.text.length);
    this.byText = new Map(tokens.map((token) => [token.text, token]));
    const literal = (token) => token.text.replace(/[\\^$.*+?()[\]{}|\/]/g, (char) => `\\${char}`);
    this.pattern = tokens.length ? new RegExp(longest.map(literal).join("|"), "gu") : null;
  }

  // Tokens, and the texts between them. starts: of a text that begins where the whole one does.
  split(text) {
    const parts = [];
    let from = 0;
    for (const match of this.pattern ? text.matchAll(this.pattern) : []) {
      const added = this.byText.get(match[0]);
      let start = match.index, stop = start + match[0].length;
      if (added.lstrip) start = Math.max(start - SPACES_BEFORE.exec(text.slice(0, start))[0].length, from);
      if (added.rstrip) stop += SPACES_AFTER.exec(text.slice(stop))[0].length;
      if (from < start) parts.push({ text: text.slice(from, start), starts: from === 0 });
      parts.push({ token: added.id });
      from = stop;
    }
    if (from < text.length) parts.push({ text: text.slice(from), starts: from === 0 });
    return parts;
  }
}
