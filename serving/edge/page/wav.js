/** A WAV file of 16-bit samples, from channels in [-1, 1]. */
export const wav = (clip, rate) => {
  const bytes = clip[0].length * clip.length * 2, view = new DataView(new ArrayBuffer(44 + bytes));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + bytes, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, clip.length, true);
  view.setUint32(24, rate, true); view.setUint32(28, rate * clip.length * 2, true);
  view.setUint16(32, clip.length * 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, bytes, true);
  for (let n = 0, at = 44; n < clip[0].length; n++)
    for (const channel of clip) { view.setInt16(at, Math.round(Math.max(-1, Math.min(1, channel[n])) * 32767), true); at += 2; }
  return new Blob([view.buffer], { type: "audio/wav" });
};
