// What a clip looks like and how it is played: its waveform, its spectrogram on a logarithmic scale of frequency, its button.
const FFT = 2048, FLOOR_DB = -95, TOP_DB = -15, LOWEST_HZ = 40, HIGHEST_HZ = 20000;

// Magma's colours at nine places; between them they are mixed.
const MAGMA = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100], [251, 135, 97], [254, 194, 135], [252, 253, 191]];

const colour = (share) => {
  const place = Math.min(0.9999, Math.max(0, share)) * (MAGMA.length - 1);
  const low = Math.floor(place), rest = place - low;
  return MAGMA[low].map((value, i) => value + rest * (MAGMA[low + 1][i] - value));
};

/** Mean of the channels of an AudioBuffer. */
export const mono = (sound) => {
  const mixed = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    const samples = sound.getChannelData(channel);
    for (let n = 0; n < mixed.length; n++) mixed[n] += samples[n] / sound.numberOfChannels;
  }
  return mixed;
};

/** Loudest sample of any channel. */
export const peak = (sound) => {
  let found = 0;
  for (let channel = 0; channel < sound.numberOfChannels; channel++)
    for (const value of sound.getChannelData(channel)) found = Math.max(found, Math.abs(value));
  return found;
};

/** Draw lowest and highest sample of each column. */
export const drawWave = (canvas, samples, ink) => {
  const width = (canvas.width = 600), height = (canvas.height = 112), pen = canvas.getContext("2d");
  pen.fillStyle = ink;
  for (let x = 0; x < width; x++) {
    let low = 1, high = -1;
    for (let n = Math.floor((x * samples.length) / width); n < ((x + 1) * samples.length) / width; n++) {
      low = Math.min(low, samples[n]);
      high = Math.max(high, samples[n]);
    }
    const top = ((1 - high) * height) / 2;
    pen.fillRect(x, top, 1, Math.max(1, ((high - low) * height) / 2));
  }
};

// Radix-2, in place.
const transform = (re, im) => {
  const size = re.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) { [re[i], re[j]] = [re[j], re[i]]; [im[i], im[j]] = [im[j], im[i]]; }
  }
  for (let length = 2; length <= size; length <<= 1) {
    const angle = (-2 * Math.PI) / length;
    for (let start = 0; start < size; start += length)
      for (let k = 0; k < length / 2; k++) {
        const c = Math.cos(angle * k), s = Math.sin(angle * k), a = start + k, b = a + length / 2;
        const x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
        re[b] = re[a] - x; im[b] = im[a] - y;
        re[a] += x; im[a] += y;
      }
  }
};

/** Power in dB full scale, a column each; a full-scale sine reads 0. */
export const drawSpectrum = (canvas, samples, rate) => {
  const width = (canvas.width = 300), height = (canvas.height = 120), pen = canvas.getContext("2d");
  const picture = pen.createImageData(width, height);
  const window_ = Float64Array.from({ length: FFT }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / FFT));
  const gain = window_.reduce((a, b) => a + b) / 2, highest = Math.min(HIGHEST_HZ, rate / 2);
  const bins = Array.from({ length: height + 1 }, (_, y) => (LOWEST_HZ * (highest / LOWEST_HZ) ** (y / height) * FFT) / rate);
  for (let x = 0; x < width; x++) {
    const middle = Math.floor(((x + 0.5) * samples.length) / width), re = new Float64Array(FFT), im = new Float64Array(FFT);
    for (let n = 0; n < FFT; n++) re[n] = (samples[middle + n - FFT / 2] ?? 0) * window_[n];
    transform(re, im);
    for (let y = 0; y < height; y++) {
      let power = 1e-12;
      const last = Math.max(Math.floor(bins[y + 1]), Math.ceil(bins[y]), 1);
      for (let bin = Math.max(1, Math.min(Math.ceil(bins[y]), last)); bin <= last; bin++) power = Math.max(power, (re[bin] ** 2 + im[bin] ** 2) / gain ** 2);
      const [r, g, b] = colour((10 * Math.log10(power) - FLOOR_DB) / (TOP_DB - FLOOR_DB));
      picture.data.set([r, g, b, 255], 4 * ((height - 1 - y) * width + x));
    }
  }
  pen.putImageData(picture, 0, 0);
};

// The play button and the picture of a sound: one plays at a time, a click on the picture goes there.
export function transport({ player, play, screen, cursor, box }, refused) {
  const toggle = () => (player.paused ? player.play().catch(refused) : player.pause());
  const follow = () => {
    cursor.style.left = `${(100 * player.currentTime) / (player.duration || 1)}%`;
    if (!player.paused) requestAnimationFrame(follow);
  };
  player.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
    play.textContent = "Pause"; play.setAttribute("aria-pressed", "true"); box.classList.add("playing"); follow();
  });
  player.addEventListener("pause", () => { play.textContent = "Play"; play.setAttribute("aria-pressed", "false"); box.classList.remove("playing"); });
  play.addEventListener("click", toggle);
  screen.addEventListener("click", (event) => {
    player.currentTime = ((event.clientX - screen.getBoundingClientRect().left) / screen.clientWidth) * player.duration;
    if (player.paused) toggle(); else follow();
  });
}
