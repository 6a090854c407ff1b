// A spectrogram becomes its player's button, with a playhead; one plays at a time. Without script the native players stay.
for (const item of document.querySelectorAll(".players li")) {
  const audio = item.querySelector("audio");
  const screen = document.createElement("button");
  screen.type = "button";
  screen.className = "screen";
  screen.setAttribute("aria-pressed", "false");
  screen.setAttribute("aria-label", "Play " + audio.getAttribute("aria-label"));
  screen.append(item.querySelector("img"));
  for (const part of ["sign", "head"]) {
    const span = document.createElement("span");
    span.className = part;
    screen.append(span);
  }
  item.querySelector(".screen").replaceWith(screen);
  audio.classList.add("driven");
  const head = screen.querySelector(".head");
  const follow = () => {
    if (audio.paused) return;
    head.style.left = (100 * audio.currentTime) / (audio.duration || 1) + "%";
    requestAnimationFrame(follow);
  };
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    screen.setAttribute("aria-pressed", "true");
    follow();
  });
  for (const end of ["pause", "ended"])
    audio.addEventListener(end, () => screen.setAttribute("aria-pressed", "false"));
  screen.addEventListener("click", () => {
    if (audio.paused) { audio.currentTime = 0; audio.play(); } else audio.pause();
  });
}
