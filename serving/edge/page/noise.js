// The samplers' noise: numpy's SeedSequence, torch's Mersenne Twister and Box-Muller transform, number for number.
const POOL = 4, BLOCK = 16, STATE = 624, AHEAD = 397;

const hasher = (constant, factor) => (value) => {
  let mixed = value ^ constant;
  constant = Math.imul(constant, factor);
  mixed = Math.imul(mixed, constant);
  return (mixed ^ (mixed >>> 16)) >>> 0;
};
const mix = (x, y) => {
  const both = Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y);
  return (both ^ (both >>> 16)) >>> 0;
};
const words = (number) => (number > 0xffffffff ? [number % 2 ** 32, Math.floor(number / 2 ** 32)] : [number]);

/** First 32 bits of numpy's SeedSequence([seed, draw]); seed up to 2^53. */
export const mixedSeed = (seed, draw) => {
  const entropy = [...words(seed), ...words(draw)], scramble = hasher(0x43b0d7e5, 0x931e8875), pool = [];
  for (let i = 0; i < POOL; i++) pool.push(scramble(entropy[i] ?? 0));
  for (let from = 0; from < POOL; from++)
    for (let to = 0; to < POOL; to++) if (from !== to) pool[to] = mix(pool[to], scramble(pool[from]));
  return hasher(0x8b51f9dd, 0x58f38ded)(pool[0]);
};

/** The 32-bit words of MT19937. */
export function* twister(seed) {
  const state = new Uint32Array(STATE);
  state[0] = seed;
  for (let i = 1; i < STATE; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  for (;;) {
    for (let i = 0; i < STATE; i++) {
      const joined = (state[i] & 0x80000000) | (state[(i + 1) % STATE] & 0x7fffffff);
      state[i] = state[(i + AHEAD) % STATE] ^ (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0);
    }
    for (let word of state) {
      word ^= word >>> 11;
      word ^= (word << 7) & 0x9d2c5680;
      word ^= (word << 15) & 0xefc60000;
      yield (word ^ (word >>> 18)) >>> 0;
    }
  }
}

/** Standard normal values, channels × frames: draw 0 starts the trajectory, draw i re-noises after step i. */
export const noise = (seed, draw, channels, frames) => {
  const random = twister(mixedSeed(seed, draw)), row = Math.ceil(channels / BLOCK) * BLOCK;
  const uniform = new Float32Array(BLOCK), normal = new Float32Array(channels * frames), half = BLOCK / 2;
  for (let frame = 0; frame < frames; frame++)
    for (let start = 0; start < row; start += BLOCK) {
      for (let i = 0; i < BLOCK; i++) uniform[i] = (random.next().value & 0xffffff) * 2 ** -24;
      for (let i = 0; i < half; i++) {
        const radius = Math.sqrt(-2 * Math.log(1 - uniform[i])), angle = 2 * Math.PI * uniform[i + half];
        if (start + i < channels) normal[(start + i) * frames + frame] = radius * Math.cos(angle);
        if (start + i + half < channels) normal[(start + i + half) * frames + frame] = radius * Math.sin(angle);
      }
    }
  return normal;
};

/** Noise levels from 1 to 0, linear in the logarithm of the signal-to-noise ratio. */
export const levels = (steps) =>
  Float32Array.from({ length: steps + 1 }, (_, i) => (i === 0 ? 1 : i === steps ? 0 : 1 / (1 + Math.exp(-6 + (8 * i) / steps))));
