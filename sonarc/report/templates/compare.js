// A blind test: pairs in random order, each pair in random order, nothing named until the end.
const source = document.getElementById("listening-data");
if (source) {
  const data = JSON.parse(source.textContent);
  const chance = () => crypto.getRandomValues(new Uint32Array(1))[0] / 2 ** 32;
  const order = data.pairs.map((pair) => ({ pair, first: chance() < 0.5 ? "a" : "b", key: chance() })).sort((x, y) => x.key - y.key);
  const votes = [];
  const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
  const box = document.getElementById("test"), start = document.getElementById("start");
  const find = (name) => box.querySelector(`[data-part="${name}"]`);
  const players = { first: new Audio(), second: new Audio() };
  const heard = new Set();
  const stop = () => Object.values(players).forEach((player) => player.pause());

  const show = () => {
    const trial = order[votes.length];
    heard.clear();
    stop();
    if (!trial) return finish();
    players.first.src = trial.pair[trial.first];
    players.second.src = trial.pair[trial.first === "a" ? "b" : "a"];
    find("prompt").textContent = trial.pair.prompt;
    find("progress").max = order.length;
    find("progress").value = votes.length;
    find("count").textContent = `${votes.length + 1} of ${order.length}`;
    for (const button of box.querySelectorAll("[data-choice]")) button.disabled = true;
    box.querySelector('[data-play="first"]').focus();
  };
  const play = (which) => {
    stop();
    players[which].currentTime = 0;
    players[which].play();
    heard.add(which);
    for (const button of box.querySelectorAll("[data-choice]")) button.disabled = heard.size < 2;
  };
  for (const which of ["first", "second"]) {
    const button = box.querySelector(`[data-play="${which}"]`);
    button.addEventListener("click", () => play(which));
    players[which].addEventListener("play", () => button.setAttribute("aria-pressed", "true"));
    for (const end of ["pause", "ended"]) players[which].addEventListener(end, () => button.setAttribute("aria-pressed", "false"));
  }
  const choose = (what) => {
    if (heard.size < 2) return;
    const { pair, first } = order[votes.length];
    const choice = what === "tie" ? "tie" : what === "first" ? first : first === "a" ? "b" : "a";
    votes.push({ prompt: pair.prompt, seed: pair.seed, first, choice });
    show();
  };
  for (const button of box.querySelectorAll("[data-choice]"))
    button.addEventListener("click", () => choose(button.dataset.choice));
  document.addEventListener("keydown", (event) => {
    if (box.hidden || !find("result").hidden || event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey) return;
    if (event.key === "1") play("first");
    if (event.key === "2") play("second");
    if (event.key === "ArrowLeft") choose("first");
    if (event.key === "ArrowRight") choose("second");
    if (event.key === "ArrowDown") { event.preventDefault(); choose("tie"); }
  });
  const finish = () => {
    stop();
    find("trial").hidden = true;
    find("result").hidden = false;
    const count = (side) => votes.filter((vote) => vote.choice === side).length;
    find("told").textContent = votes.length
      ? `A was preferred ${count("a")} times, B ${count("b")} times; no difference ${count("tie")} times.`
      : "Nothing was voted on.";
    find("save").disabled = !votes.length;
    find("told").focus();
  };
  find("end").addEventListener("click", finish);
  find("save").addEventListener("click", () => {
    const document_ = { schema: "sonarc.votes/1", id, a: data.a, b: data.b, variant: data.variant, listener: find("listener").value.trim(), votes };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(document_, null, 2)], { type: "application/json" }));
    link.download = `votes-${id.slice(0, 8)}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  start.addEventListener("click", () => { start.hidden = true; box.hidden = false; show(); });
}
