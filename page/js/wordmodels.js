// Models of a tokenizer.json that know no merges: Unigram, WordPiece and WordLevel.

import { byteTokens, idsOf } from "./bpe.js";
import { utf8Bytes } from "./payload.js";

const PENALTY = 10; // of an unknown character, below the least score
const NO_TOKEN = -1; // a stretch of a word that is no token

// The stretches of a word whose scores add up to the most.
export class UnigramModel {
  // vocab: [text, score] by id. unk: the id of the unknown token, or null.
  constructor({ vocab, unk, byte_fallback }) {
    this.unk = unk;
    this.ids = new Map(vocab.map(([text], token) => [text, token])); // the last of equal texts counts
    this.scores = vocab.map(([, score]) => score);
    this.least = this.scores.reduce((least, score) => Math.min(least, score), Infinity) - PENALTY;
    this.longest = vocab.reduce((longest, [text]) => Math.max(longest, text.length), 0);
    this.bytes = byte_fallback ? byteTokens(this.ids) : [];
  }

  tokens(word) {
    return this.#stretches(this.#bestPath(word), word).flatMap((text) => {
      const token = this.ids.get(text);
      if (token !== undefined) return [token];
      const bytes = utf8Bytes(text).map((byte) => this.bytes[byte]);
      return bytes.includes(undefined) ? [this.unk ?? missing(text)] : bytes;
    });
  }

  // For each place in a word: the best score up to there, where its last stretch begins, and that one's token.
  #bestPath(word) {
    const best = Array(word.length + 1).fill(null);
    best[0] = { score: 0 };
    const offer = (from, to, score, token) => {
      const total = score + best[from].score;
      if (best[to] === null || total > best[to].score) best[to] = { score: total, from, token };
    };
    for (let at = 0, size; at < word.length; at += size) {
      size = word.codePointAt(at) > 0xffff ? 2 : 1;
      let single = false;
      for (let to = at + 1; to <= Math.min(at + this.longest, word.length); to++) {
        const token = this.ids.get(word.slice(at, to));
        if (token === undefined) continue;
        offer(at, to, this.scores[token], token);
        single ||= to === at + size;
      }
      if (!single) offer(at, at + size, this.least, NO_TOKEN);
    }
    return best;
  }

  // The texts of a path; unknown ones that follow each other are one.
  #stretches(best, word) {
    const found = [];
    let before = false;
    for (let to = word.length; to > 0; to = best[to].from) {
      const { from, token } = best[to], unknown = this.unk !== null && (token === NO_TOKEN || token === this.unk);
      const text = word.slice(from, to);
      if (unknown && before) found[0] = text + found[0];
      else found.unshift(text);
      before = unknown;
    }
    return found;
  }
}

// The longest token that a word begins with, and so on; all or nothing.
export class WordPieceModel {
  // vocab: texts by id, or null. unk: the text of the unknown token. prefix: of tokens that go on with a word.
  constructor({ vocab, unk, prefix, most }) {
    Object.assign(this, { unk, prefix, most });
    this.ids = idsOf(vocab);
  }

  tokens(word) {
    const chars = Array.from(word), found = [];
    if (chars.length > this.most) return [this.ids.get(this.unk) ?? missing(word)];
    for (let from = 0, to; from < chars.length; from = to) {
      let token;
      for (to = chars.length; to > from; to--) {
        token = this.ids.get((from ? this.prefix : "") + chars.slice(from, to).join(""));
        if (token !== undefined) break;
      }
      if (token === undefined) return [this.ids.get(this.unk) ?? missing(word)];
      found.push(token);
    }
    return found;
  }
}

// Whole words.
export class WordLevelModel {
  constructor({ vocab, unk }) {
    this.unk = unk;
    this.ids = idsOf(vocab);
  }

  tokens(word) {
    return [this.ids.get(word) ?? this.ids.get(this.unk) ?? missing(word)];
  }
}

function missing(text) {
  throw new Error(`the tokenizer has no token for “${text}”: leave it out`);
}
