// The networks run here, so that the page stays alive.
import * as ort from "./ort/ort.wasm.bundle.min.mjs";
import { Model } from "./model.js";

ort.env.wasm.numThreads = 1;  // more would need headers that a plain static server does not send
ort.env.wasm.wasmPaths = { wasm: new URL("./ort/ort-wasm-simd-threaded.wasm", import.meta.url).href };
let wanted = 0;

const loading = Model.load(ort, (share) => postMessage({ type: "loading", share }));
loading.then(
  ({ manifest }) => postMessage({ type: "ready", manifest }),
  (error) => postMessage({ type: "broken", message: error.message }),
);

addEventListener("message", async ({ data }) => {
  if (data.type === "cancel") { wanted = 0; return; }
  wanted = data.id;
  try {
    const clip = await (await loading).generate(data, async (step) => {
      postMessage({ type: "step", id: data.id, step });
      await new Promise((go) => setTimeout(go));  // a cancellation may be waiting
      if (wanted !== data.id) throw new DOMException("Cancelled.", "AbortError");
    });
    postMessage({ type: "sound", id: data.id, clip }, clip.map((channel) => channel.buffer));
  } catch (error) {
    postMessage({ type: "failed", id: data.id, name: error.name, message: error.message });
  }
});
