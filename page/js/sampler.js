// What sampling writes into the chip before a story: the temperature's word and the noise generators' first states.

const MASK = (1n << 64n) - 1n;

// The chip's temperature word, for 0..10. Rounds half to even, as Python does.
export function temperatureWord(temperature) {
  if (!(temperature >= 0 && temperature <= 10)) throw new Error(`temperature must be in 0..10, not ${temperature}`);
  const value = temperature * Math.LN2 * 8192;
  const low = Math.floor(value), rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2) ? low + 1 : low;
}

// One xorshift32 state a token id, never 0, by splitmix64 of the seed (a BigInt below 2**64).
export function seedStates(vocab, seed) {
  const states = new Int32Array(vocab);
  let z = BigInt(seed) & MASK;
  for (let i = 0; i < vocab; i++) {
    z = (z + 0x9e3779b97f4a7c15n) & MASK;
    let y = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
    y = ((y ^ (y >> 27n)) * 0x94d049bb133111ebn) & MASK;
    states[i] = Number((y ^ (y >> 31n)) & 0xffffffffn) | 0 || 1;
  }
  return states;
}
