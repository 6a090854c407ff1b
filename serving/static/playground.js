import { drawSpectrum, drawWave, mono, peak, transport } from "./sound.js";

const at = (id) => document.getElementById(id);
const NUMBERS = ["seconds", "steps", "seed", "n", "guidance"], TEXTS = ["prompt", "negative_prompt", "format", "model"];
const KEPT = 50;
let models = [], under_way = null, audio = null;

const make = (tag, members = {}, ...inside) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(members)) name.includes("-") ? node.setAttribute(name, value) : (node[name] = value);
  node.append(...inside);
  return node;
};
const say = (text, bad = false) => { at("status").textContent = text; at("status").className = bad ? "bad" : ""; };
const headers = () => (at("key").value ? { Authorization: `Bearer ${at("key").value}` } : {});
const storage = (kind, name, value) => {  // a browser may forbid both
  try { return value === undefined ? window[kind].getItem(name) : window[kind].setItem(name, value); } catch { return null; }
};

// What is served.
async function about() {
  try {
    const answer = await fetch("v1/models", { headers: headers() });
    if (answer.status === 401) return unlock();
    if (!answer.ok) throw new Error();
    models = (await answer.json()).data;
    const [champion] = models;
    at("about").textContent = models.map((m) => `${m.alias}: ${m.id.split("/")[0]} version ${m.version}`).join(" · ") +
      ` · up to ${champion.max_seconds.toFixed(2)} s at ${champion.sample_rate} Hz`;
    at("seconds").max = champion.max_seconds;
    at("steps").placeholder = String(champion.default_steps);
    at("guided").hidden = !models.some((m) => m.guided);
    at("which").hidden = models.length < 2;
    const choices = models.map((m) => [m.alias, `${m.alias} (${m.version})`]);
    if (models.length > 1) choices.push(["both", "both"]);
    at("model").replaceChildren(...choices.map(([value, text]) => make("option", { value, textContent: text })));
  } catch {
    at("about").textContent = "No model is ready yet.";
  }
}

function unlock() {
  at("locked").hidden = false;
  at("about").textContent = "This endpoint wants a key.";
}

// What is asked: the form, a link, an earlier request.
const asked = () => {
  const found = {};
  for (const name of NUMBERS) if (at(name).value !== "") found[name] = Number(at(name).value);
  for (const name of TEXTS) if (at(name).value !== "") found[name] = at(name).value;
  return found;
};
const fill = (wanted) => {
  for (const name of [...NUMBERS, ...TEXTS]) {
    const value = wanted[name];
    if (name === "format" || name === "model") { if (value && [...at(name).options].some((o) => o.value === value)) at(name).value = value; }
    else at(name).value = value ?? (name === "n" ? 1 : "");
  }
};
const link = (wanted) => `${location.origin}${location.pathname}#${new URLSearchParams(Object.entries(wanted).map(([k, v]) => [k, String(v)]))}`;

// Asking.
async function ask(wanted, alias, signal) {
  const { model: _, format, ...body } = wanted;
  const answer = await fetch("v1/audio/generations", {
    method: "POST", signal,
    headers: { "Content-Type": "application/json", Accept: "application/json", ...headers() },
    body: JSON.stringify({ ...body, response_format: format, ...(alias ? { model: alias } : {}) }),
  });
  if (!answer.ok) throw await refusal(answer);
  return { alias: answer.headers.get("x-sonarc-alias"), ...(await answer.json()) };
}

async function refusal(answer) {
  const shown = { message: "The server could not answer.", hint: "", field: null };
  try { Object.assign(shown, (await answer.json()).error); } catch { /* not ours */ }
  return Object.assign(new Error(shown.message), { status: answer.status, hint: shown.hint, field: shown.field, after: Number(answer.headers.get("Retry-After")) });
}

async function generate(event) {
  event?.preventDefault();
  if (under_way || !at("form").reportValidity()) return;
  const wanted = asked(), both = wanted.model === "both";
  // Two models are compared on the same noise, so the seed is chosen here.
  if (both && wanted.seed === undefined) wanted.seed = crypto.getRandomValues(new Uint32Array(1))[0];
  under_way = new AbortController();
  at("make").disabled = true;
  at("cancel").hidden = false;
  say("Generating…");
  try {
    const aliases = both ? models.map((m) => m.alias) : [at("which").hidden ? "" : wanted.model];
    const answers = await Promise.all(aliases.map((alias) => ask(wanted, alias, under_way.signal)));
    await show(wanted, answers);
    remember({ ...wanted, seed: answers[0].data[0].seed });
    say(answers[0].data.length > 1 ? `${answers[0].data.length} variations are ready.` : "Ready.");
  } catch (error) {
    explain(error);
  } finally {
    under_way = null;
    at("make").disabled = false;
    at("cancel").hidden = true;
  }
}

function explain(error) {
  if (error.name === "AbortError") return say("Cancelled.");
  if (error.status === undefined) return say("The server cannot be reached.", true);
  if (error.status === 401) { unlock(); at("key").focus(); }
  const when = error.after ? ` Try again in ${error.after} s.` : "";
  say(`${error.message} ${error.hint ?? ""}${when}`.trim(), true);
  if (error.field && at(error.field)) at(error.field).focus();
}

// Showing.
async function show(wanted, answers) {
  const takes = make("div", { className: "takes" });
  const card = make("article", { "aria-label": wanted.prompt }, make("h3", { textContent: wanted.prompt }), takes);
  for (const index of answers[0].data.keys()) for (const answer of answers) takes.append(await take(wanted, answer, answer.data[index], answers.length > 1));
  at("sounds").prepend(card);
  takes.querySelector("[data-act=play]")?.focus();
}

async function take(wanted, answer, clip, several) {
  const bytes = Uint8Array.from(atob(clip.b64), (c) => c.charCodeAt(0));
  const url = URL.createObjectURL(new Blob([bytes], { type: answer.media_type }));
  audio ??= new AudioContext();
  const sound = await audio.decodeAudioData(bytes.buffer.slice(0));
  const samples = mono(sound), loudest = peak(sound);
  const player = make("audio", { src: url, preload: "auto" });
  const wave = make("canvas", { className: "wave", role: "img", "aria-label": `Waveform, ${clip.seconds.toFixed(2)} s, peak ${(20 * Math.log10(loudest || 1e-6)).toFixed(1)} dB` });
  const spectrum = make("canvas", { className: "spectrum", role: "img", "aria-label": "Spectrogram, 40 Hz to 20 kHz" });
  drawWave(wave, samples, getComputedStyle(document.documentElement).getPropertyValue("--wave"));
  drawSpectrum(spectrum, samples, sound.sampleRate);
  const cursor = make("div", { className: "cursor" });
  const screen = make("div", { className: "screen" }, wave, spectrum, cursor);
  const exact = { ...wanted, seed: clip.seed, n: 1, steps: answer.steps, model: answer.alias ?? wanted.model };

  const play = make("button", { type: "button", textContent: "Play", "data-act": "play", "aria-pressed": "false", className: "plain" });
  const loop = make("button", { type: "button", textContent: "Loop", "aria-pressed": "false", className: "plain" });
  const share = make("button", { type: "button", textContent: "Copy link", className: "plain" });
  const again = make("button", { type: "button", textContent: "Use settings", className: "plain" });
  const save = make("a", { href: url, download: `sonarc-${clip.seed}.${wanted.format}`, textContent: "Download", className: "plain" });
  const box = make("div", { className: "take" });

  transport({ player, play, screen, cursor, box }, () => say("The browser refused to play.", true));
  loop.addEventListener("click", () => { player.loop = !player.loop; loop.setAttribute("aria-pressed", String(player.loop)); });
  share.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(link(exact)); say("The link is copied: it makes the same sound."); }
    catch { location.hash = new URL(link(exact)).hash; say("The link is in the address bar: it makes the same sound."); }
  });
  again.addEventListener("click", () => { fill(exact); at("prompt").focus(); });

  const which = several || models.length > 1 ? `${answer.alias} (${answer.model.split("/")[1]}) · ` : "";
  const facts = make("p", { className: "facts", textContent: `${which}${clip.seconds.toFixed(2)} s · ${answer.steps} steps · seed ${clip.seed} · made in ${(answer.timings.total ?? 0).toFixed(2)} s` });
  box.append(player, screen, facts, make("div", { className: "acts" }, play, loop, save, share, again));
  return box;
}

// Earlier requests: settings only, since a seed makes the same sound again.
const earlier = () => { try { return JSON.parse(storage("localStorage", "sonarc.history") ?? "[]"); } catch { return []; } };
function remember(wanted) {
  const list = [wanted, ...earlier().filter((other) => JSON.stringify(other) !== JSON.stringify(wanted))].slice(0, KEPT);
  storage("localStorage", "sonarc.history", JSON.stringify(list));
  recall();
}
function recall() {
  const list = earlier();
  at("past").hidden = !list.length;
  at("history").replaceChildren(...list.map((wanted) => {
    const again = make("button", { type: "button", textContent: "Again", className: "plain", "aria-label": `Again: ${wanted.prompt}` });
    again.addEventListener("click", () => { fill(wanted); generate(); });
    const facts = make("small", { textContent: `seed ${wanted.seed}${wanted.steps ? ` · ${wanted.steps} steps` : ""}${wanted.seconds ? ` · ${wanted.seconds} s` : ""}` });
    return make("li", {}, make("span", {}, wanted.prompt, facts), again);
  }));
}

at("form").addEventListener("submit", generate);
at("cancel").addEventListener("click", () => under_way?.abort());
at("forget").addEventListener("click", () => { storage("localStorage", "sonarc.history", "[]"); recall(); at("prompt").focus(); });
at("key").addEventListener("change", () => { storage("sessionStorage", "sonarc.key", at("key").value); about(); });
at("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = root.dataset.theme ?? (dark ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  storage("localStorage", "sonarc.theme", root.dataset.theme);
});
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") generate(event);
  if (event.key === "Escape") under_way?.abort();
});

const theme = storage("localStorage", "sonarc.theme");
if (theme) document.documentElement.dataset.theme = theme;
at("key").value = storage("sessionStorage", "sonarc.key") ?? "";
recall();
await about();
const linked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
if (linked.prompt) { fill(linked); say("From a link: Generate makes that sound."); }
