"use strict";
// Denoises digits in the browser: diffnb's shipped U-Net, its schedule and its DDIM step in plain JavaScript.
// Part 1 draws noise, part 2 is the network, part 3 the chain; test.py compares them with torch. Part 4 is the page.
// `shipped` comes from weights.js, which export.py writes: the model as diffnb's to_onnx exports it, and a case to check.
// Weights, config and schedule are read out of that ONNX file. Its graph is not: part 2 computes the network in 9 kB of code. A
// runtime for any graph, onnxruntime-web 1.30, is 14.2 MB of WebAssembly, which a page opened from a disk may not load; on one core it
// took 2.4 s to start, and then 26 ms for a picture, or 1.6 ms each for twenty at once, where part 2 takes 8 ms each.


// ---- 1. Noise from a seed ------------------------------------------------------------------------------------------

// Uniform numbers in [0, 1) from a 32-bit state (mulberry32).
function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6D2B79F5) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
}

// Standard normal pictures for digit number `index` of a seed (Box and Muller). Stream 0 makes x_T, stream 1 the fresh noise of
// the steps: so x_T stays the same whatever else is changed.
function gaussian(seed, index, stream) {
  const mix = uniform(Math.imul(seed, 0x9E3779B1) ^ Math.imul(2 * index + stream + 1, 0x85EBCA6B));
  const u = uniform(mix() * 4294967296);
  return n => {
    const z = new Float64Array(n + n % 2);
    for (let i = 0; i < n; i += 2) {
      const radius = Math.sqrt(-2 * Math.log(1 - u())), angle = 2 * Math.PI * u();
      z[i] = radius * Math.cos(angle);
      z[i + 1] = radius * Math.sin(angle);
    }
    return z.subarray(0, n);
  };
}


// ---- 2. The network ------------------------------------------------------------------------------------------------
// A picture of c channels with n × n pixels is a Float64Array of c·n·n numbers, channel by channel, row by row.

function decode(base64, ArrayType) {
  const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
  return new ArrayType(bytes.buffer);
}

// The fields of a protobuf message, one after the other: [number, value]. A value is a number, or bytes.
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0, unit = 1, byte;
    do { byte = bytes[at++]; value += (byte & 127) * unit; unit *= 128; } while (byte & 128);
    return value;
  };
  while (at < bytes.length) {
    const tag = varint(), number = Math.floor(tag / 8), kind = tag % 8;
    if (kind === 0) yield [number, varint()];
    else if (kind === 2) { const n = varint(); yield [number, bytes.subarray(at, at += n)]; }
    else at += kind === 1 ? 8 : 4;
  }
}

// An ONNX file of diffnb: what it says about the model, and its weights, { "stem.weight": numbers, ... }.
// Model: 7 is the graph, 14 a text with its name. Graph: 5 is a tensor. Tensor: 2 is its type (1 is float32), 8 its name, 9 its bytes.
function readOnnx(bytes) {
  const text = b => new TextDecoder().decode(b), weights = {};
  let about;
  for (const [number, value] of fields(bytes)) {
    if (number === 14) {
      const entry = Object.fromEntries([...fields(value)].map(([i, v]) => [i, text(v)]));
      if (entry[1] === "diffnb") about = JSON.parse(entry[2]);
    }
    if (number !== 7) continue;
    for (const [part, tensor] of fields(value)) {
      if (part !== 5) continue;
      const t = Object.fromEntries(fields(tensor)), name = text(t[8]);
      if (t[2] === 1 && name.startsWith("net.")) weights[name.slice(4)] = Float64Array.from(new Float32Array(t[9].slice().buffer));
    }
  }
  return { about, weights };
}

const silu = x => x.map(v => v / (1 + Math.exp(-v)));
const add = (x, y) => x.map((v, i) => v + y[i]);

function join(x, y) {
  const both = new Float64Array(x.length + y.length);
  both.set(x);
  both.set(y, x.length);
  return both;
}

// Weight [m, k] times a vector [k], plus bias.
function linear(x, weight, bias) {
  return bias.map((b, row) => {
    for (let i = 0, at = row * x.length; i < x.length; i++) b += weight[at + i] * x[i];
    return b;
  });
}

// A 1 × 1 convolution: the same matrix for each of `pixels` pixels.
function conv1(x, pixels, weight, bias) {
  const y = new Float64Array(bias.length * pixels), channels = x.length / pixels;
  for (let o = 0; o < bias.length; o++) {
    y.fill(bias[o], o * pixels, (o + 1) * pixels);
    for (let i = 0; i < channels; i++)
      for (let p = 0, w = weight[o * channels + i]; p < pixels; p++) y[o * pixels + p] += w * x[i * pixels + p];
  }
  return y;
}

// A 3 × 3 convolution of n × n pixels with a border of zeros; stride 2 halves the size, rounding up.
function conv3(x, n, weight, bias, stride = 1) {
  const channels = x.length / (n * n), wide = n + 2, m = Math.ceil(n / stride);
  const padded = new Float64Array(channels * wide * wide), y = new Float64Array(bias.length * m * m);
  for (let i = 0; i < channels; i++)
    for (let r = 0; r < n; r++) padded.set(x.subarray((i * n + r) * n, (i * n + r + 1) * n), (i * wide + r + 1) * wide + 1);
  for (let o = 0; o < bias.length; o++) {
    y.fill(bias[o], o * m * m, (o + 1) * m * m);
    for (let i = 0; i < channels; i++) {
      const at = 9 * (o * channels + i);
      const a = weight[at], b = weight[at + 1], c = weight[at + 2], d = weight[at + 3], e = weight[at + 4],
            f = weight[at + 5], g = weight[at + 6], h = weight[at + 7], k = weight[at + 8];
      for (let r = 0; r < m; r++) {
        let p = (i * wide + r * stride) * wide, q = p + wide, s = q + wide, to = (o * m + r) * m;
        for (const end = to + m; to < end; to++, p += stride, q += stride, s += stride)
          y[to] += a * padded[p] + b * padded[p + 1] + c * padded[p + 2]
                 + d * padded[q] + e * padded[q + 1] + f * padded[q + 2]
                 + g * padded[s] + h * padded[s + 1] + k * padded[s + 2];
      }
    }
  }
  return y;
}

// Group normalisation: each group of channels to mean 0 and variance 1, then a gain and a bias for each channel.
function groupNorm(x, weight, bias, groups, eps) {
  const size = x.length / groups, pixels = x.length / weight.length, y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += size) {
    let mean = 0, variance = 0;
    for (let i = start; i < start + size; i++) mean += x[i] / size;
    for (let i = start; i < start + size; i++) variance += (x[i] - mean) ** 2 / size;
    const scale = 1 / Math.sqrt(variance + eps);
    for (let i = start; i < start + size; i++) {
      const channel = Math.floor(i / pixels);
      y[i] = (x[i] - mean) * scale * weight[channel] + bias[channel];
    }
  }
  return y;
}

// What attention returns for queries, keys and values that lie in one array, [q | k | v] × heads × width × pixels.
function attention(qkv, pixels, heads) {
  const channels = qkv.length / pixels / 3, width = channels / heads, y = new Float64Array(channels * pixels);
  for (let head = 0; head < heads; head++) {
    const q = head * width * pixels, k = q + channels * pixels, v = k + channels * pixels;
    for (let i = 0; i < pixels; i++) {
      const share = new Float64Array(pixels);
      for (let j = 0; j < pixels; j++)
        for (let d = 0; d < width; d++) share[j] += qkv[q + d * pixels + i] * qkv[k + d * pixels + j] / Math.sqrt(width);
      const top = Math.max(...share);
      let total = 0;
      for (let j = 0; j < pixels; j++) total += share[j] = Math.exp(share[j] - top);
      for (let d = 0; d < width; d++)
        for (let j = 0; j < pixels; j++) y[q + d * pixels + i] += share[j] / total * qkv[v + d * pixels + j];
    }
  }
  return y;
}

// Every pixel four times: n × n becomes 2n × 2n.
function enlarge(x, n) {
  const y = new Float64Array(4 * x.length);
  for (let i = 0; i < y.length; i++) {
    const column = i % (2 * n), row = (i - column) / (2 * n);     // rows of all channels, counted through
    y[i] = x[(row >> 1) * n + (column >> 1)];
  }
  return y;
}

// Cosines, then sines, of the time at dim/2 speeds. torch does this in float32, and so do we.
function timeEmbedding(t, dim) {
  const half = dim / 2, angles = Float64Array.from({ length: half }, (_, i) => Math.fround(t * Math.fround(Math.exp(Math.fround(-Math.log(10000) * i / half)))));
  return Float64Array.from([...angles.map(Math.cos), ...angles.map(Math.sin)]);
}

// The U-Net of diffnb.unet as a function (x, t, label) -> predicted noise; label -1 is none. The names of the tensors say what
// stands where: a part with "conv1" is a residual block, one with "qkv" attention, one with "conv" changes the size.
function network(config, w) {
  const { channels, groups, heads, eps = 1e-5 } = config;
  const norm = (x, name) => groupNorm(x, w[name + ".weight"], w[name + ".bias"], groups, eps);
  const dense = (x, name) => linear(x, w[name + ".weight"], w[name + ".bias"]);
  const one = (x, n, name) => conv1(x, n * n, w[name + ".weight"], w[name + ".bias"]);
  const three = (x, n, name, stride) => conv3(x, n, w[name + ".weight"], w[name + ".bias"], stride);
  const has = name => name + ".weight" in w;

  function embed(t, label) {
    const emb = dense(silu(dense(timeEmbedding(t, channels), "time.0")), "time.2");
    return silu(label < 0 ? emb : add(emb, w["label.weight"].subarray(label * emb.length, (label + 1) * emb.length)));
  }

  function resBlock(x, n, emb, name) {
    const e = dense(emb, name + ".emb");
    const h = three(silu(norm(x, name + ".norm1")), n, name + ".conv1").map((v, i) => v + e[Math.floor(i / (n * n))]);
    const out = three(silu(norm(h, name + ".norm2")), n, name + ".conv2");
    return add(has(name + ".skip") ? one(x, n, name + ".skip") : x, out);
  }

  function attend(x, n, name) {
    return add(x, one(attention(one(norm(x, name + ".norm"), n, name + ".qkv"), n * n, heads), n, name + ".proj"));
  }

  // The parts of one stage in turn -> picture and its new size.
  function stage(x, n, emb, name) {
    for (let j = 0, part; has((part = `${name}.${j}`) + ".conv") || has(part + ".conv1") || has(part + ".qkv"); j++) {
      if (has(part + ".conv1")) x = resBlock(x, n, emb, part);
      else if (has(part + ".qkv")) x = attend(x, n, part);
      else if (name.startsWith("down")) { x = three(x, n, part + ".conv", 2); n = Math.ceil(n / 2); }
      else { x = three(enlarge(x, n), 2 * n, part + ".conv"); n = 2 * n; }
    }
    return [x, n];
  }

  const count = side => new Set(Object.keys(w).filter(k => k.startsWith(side + ".")).map(k => k.split(".")[1])).size;
  const downs = count("down"), ups = count("up");

  return (x, t, label = -1) => {
    let n = Math.sqrt(x.length / config.in_channels), h = three(x, n, "stem");
    const emb = embed(t, label), saved = [h];
    for (let i = 0; i < downs; i++) { [h, n] = stage(h, n, emb, `down.${i}`); saved.push(h); }
    [h, n] = stage(h, n, emb, "middle");
    for (let i = 0; i < ups; i++) [h, n] = stage(join(h, saved.pop()), n, emb, `up.${i}`);
    return three(silu(norm(h, "out.0")), n, "out.2");
  };
}


// ---- 3. The chain --------------------------------------------------------------------------------------------------

// S times that are evenly spread over 1..T, decreasing, then 0 ("trailing").
function timesteps(T, S) {
  const times = Array.from({ length: S }, (_, i) => Math.round(T - i * T / S));
  return [...times, 0];
}

// A model: √ᾱ_t and √(1-ᾱ_t) for t = 0..T, and the guided prediction of noise and clean picture.
function model(shipped) {
  const { about, weights } = readOnnx(decode(shipped.onnx, Uint8Array));
  const net = network(about.network.config, weights), { signal, noise, clip: [low, high] } = about;
  const alphaBar = signal.map(a => a * a);

  // Classifier-free guidance: scale 0 ignores the label, 1 is the conditional network, more exaggerates what the label changes.
  function predict(x, t, label, scale) {
    let eps = net(x, t, scale > 0 ? label : -1);
    if (label >= 0 && scale > 0 && scale !== 1) eps = net(x, t, -1).map((u, i) => u + scale * (eps[i] - u));
    const x0 = x.map((v, i) => Math.min(high, Math.max(low, (v - noise[t] * eps[i]) / signal[t])));
    return { x0, eps: x.map((v, i) => (v - signal[t] * x0[i]) / noise[t]) };
  }

  // From x_t to x_s with η of the ancestral step's fresh noise: 0 is DDIM, 1 is DDPM (E26, E27).
  function step(x, t, s, { label = -1, scale = 1, eta = 0, draw }) {
    const { x0, eps } = predict(x, t, label, scale);
    const jump = 1 - alphaBar[t] / alphaBar[s], ratio = alphaBar[t] / alphaBar[s], share = (1 - alphaBar[s]) / (1 - alphaBar[t]);
    const sigma = eta * Math.sqrt(jump * share);
    const kept = Math.sqrt(share * (ratio * (1 - alphaBar[s]) + (1 - eta * eta) * jump));   // √(b_s² - σ²), without cancellation
    const fresh = sigma > 0 ? draw(x.length) : null;
    return { x0, next: x0.map((v, i) => signal[s] * v + kept * eps[i] + (fresh ? sigma * fresh[i] : 0)) };
  }

  return { T: alphaBar.length - 1, signal, noise, net, predict, step };
}

// The largest difference between the page's network and torch's on the case that export.py stored.
function selfCheck({ net }, { x, t, y, output }) {
  const input = Float64Array.from(decode(x, Float32Array)), theirs = decode(output, Float32Array), n = input.length / t.length;
  const ours = t.map((time, i) => net(input.subarray(i * n, (i + 1) * n), time, y[i]));
  return Math.max(...ours.flatMap((o, i) => Array.from(o, (v, j) => Math.abs(v - theirs[i * n + j]))));
}


// ---- 4. The page ---------------------------------------------------------------------------------------------------

const COUNT = 20, STEPS = [1, 2, 5, 10, 20, 50, 100];                 // chains at once; choices of S, all divide T
const $ = id => document.getElementById(id);
const element = (name, properties, ...children) => {
  const e = Object.assign(document.createElement(name), properties);
  e.append(...children);
  return e;
};

// A picture in [-1, 1] as grey pixels, black to white; what lies outside is cut off, as in the notebooks.
function paint(canvas, x) {
  const context = canvas.getContext("2d"), image = context.createImageData(8, 8);
  for (let i = 0; i < 64; i++) image.data.set([127.5 * (x[i] + 1), 127.5 * (x[i] + 1), 127.5 * (x[i] + 1), 255], 4 * i);
  context.putImageData(image, 0, 0);
}

// Let the browser paint and answer to the reader, then go on.
const pause = () => new Promise(resume => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => { channel.port1.close(); resume(); };
  channel.port2.postMessage(0);
});

function page() {
  const m = model(shipped), nothing = new Float64Array(64).fill(-1);
  let settings, times, films;         // films[i][k]: picture x and prediction x0 of chain i at times[k]
  let done = 0, at = 0, chosen = 0;   // the last k that all chains have reached, the k that is shown, the chain in the film
  let run = 0, playing = 0;           // numbers of the computation and of the animation that may go on
  let follow = true;                  // show each step as it comes

  // What the form says.
  function read() {
    const label = $("labels").querySelector("input:checked").value, S = STEPS[$("steps").value];
    const seed = Math.min(4294967295, Math.max(0, Math.round(Number($("seed").value) || 0)));
    return { label, S, seed, scale: Number($("scale").value), eta: Number($("eta").value) };
  }
  const labelOf = i => settings.label === "each" ? i % 10 : settings.label === "any" ? -1 : Number(settings.label);

  // Walk all chains from noise to picture, in pieces of a few milliseconds, so that the page stays alive.
  async function compute() {
    const mine = ++run;
    settings = read();
    times = timesteps(m.T, settings.S);
    const { seed, scale, eta } = settings;
    films = Array.from({ length: COUNT }, (_, i) => [{ x: gaussian(seed, i, 0)(64) }]);
    const draws = films.map((_, i) => gaussian(seed, i, 1)), began = performance.now();
    done = at = 0; follow = true;
    describe();
    layFilm();
    show();
    let breath = performance.now();
    for (let k = 0; k < settings.S; k++) {
      for (let i = 0; i < COUNT; i++) {
        const { x0, next } = m.step(films[i][k].x, times[k], times[k + 1], { label: labelOf(i), scale, eta, draw: draws[i] });
        films[i][k].x0 = x0;
        films[i].push({ x: next, x0: next });                 // at the end, or until the next step is made
        if (performance.now() - breath > 12) {
          await pause();
          if (mine !== run) return;                           // the reader has changed a setting
          breath = performance.now();
        }
      }
      done = k + 1;
      if (follow) at = done;
      show();
    }
    const calls = settings.S * COUNT * (settings.label !== "any" && scale > 0 && scale !== 1 ? 2 : 1);
    $("status").textContent = `${COUNT} chains of ${settings.S} step${settings.S > 1 ? "s" : ""}: ${calls} network calls in ${((performance.now() - began) / 1000).toFixed(1)} s.`;
  }

  // The settings in words.
  function describe() {
    const { label, scale, eta, S } = settings;
    $("scale-value").textContent = label === "any" ? "off" : scale;
    $("scale").disabled = label === "any";
    $("eta-value").textContent = eta === 0 ? "0 · DDIM" : eta === 1 ? "1 · DDPM" : eta;
    $("steps-value").textContent = S;
    $("steps").setAttribute("aria-valuetext", `${S} steps`);
    $("position").max = S;
    $("status").textContent = "";
    const lines = times.slice(0, -1).map(t => `<line x1="${1000 * (1 - t / m.T)}" x2="${1000 * (1 - t / m.T)}" y1="97" y2="103"/>`);
    $("stops").innerHTML = lines.join("");
    [...$("gallery").children].forEach((b, i) => b.setAttribute("aria-label", `chain ${i + 1}` + (labelOf(i) < 0 ? "" : `, digit ${labelOf(i)}`)));
  }

  // The film's columns: evenly spaced steps of the chain.
  function layFilm() {
    const n = Math.min(11, settings.S + 1);
    $("track").style.setProperty("--film", n);
    $("film").replaceChildren(...["now", "guess"].flatMap(row => Array.from({ length: n }, (_, j) => {
      const canvas = element("canvas", { width: 8, height: 8, className: row });
      canvas.dataset.k = Math.round(j * settings.S / (n - 1));
      return canvas;
    })));
  }

  // Everything that depends on the time and the chain that are looked at.
  function show() {
    at = Math.min(at, done);
    const t = times[at], { x, x0 } = films[chosen][at], a = m.signal[t], b = m.noise[t];
    paint($("now"), x);
    paint($("guess"), x0 ?? nothing);
    $("now").setAttribute("aria-label", `chain ${chosen + 1} at t = ${t}`);
    $("guess").setAttribute("aria-label", `picture that the network expects, seen from t = ${t}`);
    $("time").textContent = t;
    $("signal").textContent = a.toFixed(3);
    $("noise").textContent = b.toFixed(3);
    $("ratio").textContent = t === 0 ? "no noise" : (a / b).toPrecision(2);
    $("position").value = at;
    $("position").setAttribute("aria-valuetext", `t = ${t}, signal ${a.toFixed(2)}, noise ${b.toFixed(2)}`);
    for (const canvas of $("film").children) {
      const frame = films[chosen][canvas.dataset.k], picture = canvas.classList.contains("now") ? frame?.x : frame?.x0;
      canvas.classList.toggle("empty", !picture || canvas.dataset.k > done);
      canvas.classList.toggle("here", Number(canvas.dataset.k) === at);
      if (picture && canvas.dataset.k <= done) paint(canvas, picture);
    }
    [...$("gallery").children].forEach((button, i) => {
      const { x, x0 } = films[i][at];
      paint(button.firstChild, $("expected").checked ? x0 ?? nothing : x);
      button.setAttribute("aria-pressed", i === chosen);
    });
    $("gallery-name").textContent = `Twenty chains at t = ${t}`;
    const place = `${100 * (1 - t / m.T)}%`;
    for (const [id, height] of [["cursor"], ["dot-noise", b], ["dot-signal", a]]) {
      $(id).style.left = place;
      if (height !== undefined) $(id).style.top = `${100 * (1 - height)}%`;
    }
  }

  function go(k) {
    follow = false; playing++;
    $("play").textContent = "Play";
    at = Math.min(Number(k), done);
    show();
  }

  // Run the film once, about two seconds long, from where it stands, or from the noise if it stands at the end.
  function play() {
    if ($("play").textContent === "Pause") return go(at);
    go(at === settings.S ? 0 : at);
    const mine = ++playing, from = at, began = performance.now();
    $("play").textContent = "Pause";
    requestAnimationFrame(function frame(now) {
      if (mine !== playing) return;
      const k = from + Math.floor((now - began) / 2500 * settings.S);
      at = Math.min(k, done);
      show();
      if (at < settings.S) requestAnimationFrame(frame);
      else go(at);
    });
  }

  // Build what depends on the model.
  const choice = (value, text, className = "") => element("label", { className },
    element("input", { type: "radio", name: "label", value, checked: value === "each" }), element("span", { textContent: text }));
  $("labels").append(choice("each", "0 to 9, twice", "more"), choice("any", "any", "half"),
    ...Array.from({ length: 10 }, (_, d) => choice(d, d)));
  $("gallery").append(...Array.from({ length: COUNT }, (_, i) => {
    const button = element("button", { type: "button" }, element("canvas", { width: 8, height: 8 }));
    button.addEventListener("click", () => { chosen = i; show(); });
    return button;
  }));
  const path = table => "M" + Array.from({ length: 201 }, (_, i) => `${5 * i} ${100 * (1 - table[m.T - Math.round(i * m.T / 200)])}`).join("L");
  $("curve").querySelector("path.noise").setAttribute("d", path(m.noise));
  $("curve").querySelector("path.signal").setAttribute("d", path(m.signal));
  $("check").textContent = `On a stored case the network in this page and PyTorch's differ by ${selfCheck(m, shipped.reference).toExponential(0)}, checked just now.`;

  $("controls").addEventListener("submit", event => event.preventDefault());
  for (const id of ["labels", "scale", "eta", "steps", "seed"]) $(id).addEventListener(id === "seed" ? "change" : "input", compute);
  $("fresh").addEventListener("click", () => { $("seed").value = read().seed % 4294967295 + 1; compute(); });
  $("play").addEventListener("click", play);
  $("expected").addEventListener("input", show);
  $("position").addEventListener("input", () => go($("position").value));
  $("film").addEventListener("pointerdown", event => { if (event.target.dataset.k) go(event.target.dataset.k); });
  compute();
}

if (typeof document !== "undefined") {
  if (typeof shipped === "undefined") document.querySelector("main").prepend(element("p", { className: "error", textContent: "weights.js is missing: run `python export.py` in this folder." }));
  else page();
}
