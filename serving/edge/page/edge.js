// The playground without a server: what is typed here stays in this browser.
import { drawSpectrum, drawWave, transport } from "./sound.js";
import { wav } from "./wav.js";

const at = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
let manifest = null, under_way = null, asked = 0;

const make = (tag, members = {}, ...inside) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(members)) name.includes("-") ? node.setAttribute(name, value) : (node[name] = value);
  node.append(...inside);
  return node;
};
const say = (text, bad = false) => { at("status").textContent = text; at("status").className = bad ? "bad" : ""; };
const progress = (share) => { at("progress").hidden = share === null; at("progress").value = share ?? 0; };
const storage = (name, value) => {  // a browser may forbid both
  try { return value === undefined ? localStorage.getItem(name) : localStorage.setItem(name, value); } catch { return null; }
};
const number = (id, otherwise) => (at(id).value === "" ? otherwise : Number(at(id).value));

// The model arrives.
const heard = {
  loading({ share }) { progress(share); say(`Loading the model: ${Math.round(100 * share)} %.`); },
  ready(told) {
    manifest = told.manifest;
    const longest = manifest.clip_samples / manifest.sample_rate, precision = manifest.graphs.int8 ? "int8" : "float32";
    at("about").textContent = `model ${manifest.package_sha256.slice(0, 8)} in ${precision}, in this browser · up to ${longest.toFixed(2)} s at ${manifest.sample_rate} Hz`;
    at("seconds").max = longest;
    at("steps").placeholder = String(manifest.steps);
    at("make").disabled = false;
    progress(null);
    say("Ready. Nothing you type leaves this browser.");
  },
  broken({ message }) { progress(null); say(`The model could not be loaded: ${message} Export it again, or serve the whole folder.`, true); },
  step({ id, step }) {
    if (id !== under_way?.id) return;
    progress(step / (under_way.steps + 1));
    say(step < under_way.steps ? `Step ${step + 1} of ${under_way.steps}…` : "Decoding…");
  },
  sound({ id, clip }) {
    if (id !== under_way?.id) return;
    show(under_way, clip, (performance.now() - under_way.begun) / 1000);
    settle("Ready.");
  },
  failed({ id, name, message }) {
    if (id === under_way?.id) name === "AbortError" ? settle("Cancelled.") : settle(`The sound could not be made: ${message}`, true);
  },
};
worker.addEventListener("message", ({ data }) => heard[data.type](data));
worker.addEventListener("error", () => heard.broken({ message: "this browser cannot run it." }));

function generate(event) {
  event?.preventDefault();
  if (under_way || !manifest || !at("form").reportValidity()) return;
  const prompt = at("prompt").value;
  if (!prompt.trim()) { say("The prompt is blank. Say what it should sound like.", true); at("prompt").focus(); return; }
  under_way = {
    id: ++asked, begun: performance.now(), prompt,
    seconds: number("seconds", manifest.clip_samples / manifest.sample_rate),
    steps: number("steps", manifest.steps),
    seed: number("seed", crypto.getRandomValues(new Uint32Array(1))[0]),
  };
  at("make").disabled = true;
  at("cancel").hidden = false;
  say("Reading the prompt…");
  worker.postMessage({ type: "generate", ...under_way });
}
function settle(text, bad = false) {
  under_way = null;
  at("make").disabled = false;
  at("cancel").hidden = true;
  progress(null);
  say(text, bad);
}
const cancel = () => { if (under_way) { worker.postMessage({ type: "cancel" }); say("Cancelling…"); } };

function show({ prompt, seconds, steps, seed }, clip, took) {
  const rate = manifest.sample_rate, url = URL.createObjectURL(wav(clip, rate));
  const samples = clip[0].map((_, n) => clip.reduce((sum, channel) => sum + channel[n], 0) / clip.length);
  const peak = clip.reduce((most, channel) => channel.reduce((found, value) => Math.max(found, Math.abs(value)), most), 1e-6);
  const player = make("audio", { src: url, preload: "auto" });
  const wave = make("canvas", { className: "wave", role: "img", "aria-label": `Waveform, ${seconds.toFixed(2)} s, peak ${(20 * Math.log10(peak)).toFixed(1)} dB` });
  const spectrum = make("canvas", { className: "spectrum", role: "img", "aria-label": "Spectrogram, 40 Hz to 20 kHz" });
  drawWave(wave, samples, getComputedStyle(document.documentElement).getPropertyValue("--wave"));
  drawSpectrum(spectrum, samples, rate);
  const cursor = make("div", { className: "cursor" }), screen = make("div", { className: "screen" }, wave, spectrum, cursor);
  const play = make("button", { type: "button", textContent: "Play", "aria-pressed": "false", className: "plain" });
  const again = make("button", { type: "button", textContent: "Use settings", className: "plain" });
  const save = make("a", { href: url, download: `sonarc-${seed}.wav`, textContent: "Download", className: "plain" });
  const facts = make("p", { className: "facts", textContent: `${seconds.toFixed(2)} s · ${steps} steps · seed ${seed} · made in ${took.toFixed(2)} s` });
  const box = make("div", { className: "take" }, player, screen, facts, make("div", { className: "acts" }, play, save, again));

  transport({ player, play, screen, cursor, box }, () => say("The browser refused to play.", true));
  again.addEventListener("click", () => {
    for (const [id, value] of Object.entries({ prompt, seconds, steps, seed })) at(id).value = value;
    at("prompt").focus();
  });
  at("sounds").prepend(make("article", { "aria-label": prompt }, make("h3", { textContent: prompt }), make("div", { className: "takes" }, box)));
  play.focus();
}

at("form").addEventListener("submit", generate);
at("cancel").addEventListener("click", cancel);
at("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = (root.dataset.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
  storage("sonarc.theme", root.dataset.theme);
});
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") generate(event);
  if (event.key === "Escape") cancel();
});
const theme = storage("sonarc.theme");
if (theme) document.documentElement.dataset.theme = theme;
