// Prompts to samples with the exported networks, as player.py does it.
import { levels, noise } from "./noise.js";
import { WordPiece } from "./wordpiece.js";

const CEILING = 10 ** (-1 / 20), NETWORKS = ["text_encoder", "dit", "decoder"];

const fetched = async (path, told) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} is missing.`);
  const parts = [], reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    told(value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
};

export class Model {
  /** ort: onnxruntime-web; progress(share): of the bytes. */
  static async load(ort, progress) {
    const manifest = await (await fetch("manifest.json")).json();
    const graphs = manifest.graphs.int8 ?? manifest.graphs.float32, names = NETWORKS.map((name) => graphs[name]);
    const all = [...names, manifest.tokenizer].reduce((sum, name) => sum + manifest.files[name].bytes, 0);
    let arrived = 0;
    const told = (bytes) => progress((arrived += bytes) / all);
    const tokenizer = JSON.parse(new TextDecoder().decode(await fetched(manifest.tokenizer, told)));
    const sessions = {};
    for (const [i, network] of NETWORKS.entries())
      sessions[network] = await ort.InferenceSession.create(await fetched(names[i], told), { executionProviders: ["wasm"] });
    return new Model(ort, manifest, sessions, new WordPiece(tokenizer, manifest.max_tokens));
  }

  constructor(ort, manifest, sessions, tokenizer) {
    Object.assign(this, { ort, manifest, sessions, tokenizer });
  }

  tensor(type, values, shape) {
    return new this.ort.Tensor(type, values, shape);
  }

  /** The channels of a clip, Float32Array each; before(step) is awaited before every step and may throw. */
  async generate({ prompt, seconds, steps, seed }, before) {
    const m = this.manifest, samples = Math.round(seconds * m.sample_rate), { latent_channels: channels } = m;
    const frames = Math.ceil(samples / (m.hop * m.patch)) * m.patch, shape = [1, channels, frames];
    const given = { ...(await this.read(prompt)), seconds: this.tensor("float32", Float32Array.of(seconds), [1]) };
    let x = noise(seed, 0, channels, frames), clean = x;
    const t = levels(steps);
    for (let step = 0; step < steps; step++) {
      await before(step);
      const level = this.tensor("float32", Float32Array.of(t[step]), [1]);
      const { velocity } = await this.sessions.dit.run({ ...given, latents: this.tensor("float32", x, shape), level });
      clean = x.map((value, i) => value - t[step] * velocity.data[i]);
      const next = t[step + 1];
      if (next > 0) {
        const fresh = noise(seed, step + 1, channels, frames);
        x = clean.map((value, i) => (1 - next) * value + next * fresh[i]);
      }
    }
    await before(steps);
    return this.decode(clean, frames, samples);
  }

  async read(prompt) {
    const ids = this.tokenizer.encode(prompt), { max_tokens: longest, text_width: width } = this.manifest;
    const { states } = await this.sessions.text_encoder.run({ ids: this.tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]) });
    const text = new Float32Array(longest * width);
    text.set(states.data);
    const mask = Uint8Array.from({ length: longest }, (_, i) => Number(i < ids.length));
    return { text: this.tensor("float32", text, [1, longest, width]), mask: this.tensor("bool", mask, [1, longest]) };
  }

  async decode(clean, frames, samples) {
    const { frames: whole, silence } = this.manifest, latents = new Float32Array(silence.length * whole);
    for (const [channel, value] of silence.entries()) {
      latents.fill(value, channel * whole, (channel + 1) * whole);
      latents.set(clean.subarray(channel * frames, (channel + 1) * frames), channel * whole);
    }
    const { audio } = await this.sessions.decoder.run({ latents: this.tensor("float32", latents, [1, silence.length, whole]) });
    const [, count, length] = audio.dims;
    const clip = Array.from({ length: count }, (_, c) => audio.data.slice(c * length, c * length + samples));
    let peak = 0;
    for (const channel of clip) for (const value of channel) peak = Math.max(peak, Math.abs(value));
    return peak > CEILING ? clip.map((channel) => channel.map((value) => (value * CEILING) / peak)) : clip;
  }
}
