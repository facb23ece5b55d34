// Times one tiny object through each provider, over a connection that is already open, and reports the round trips.
// Stores nothing, sends no cookies, and waits until the page has nothing better to do. The server fills in the two constants.
(() => {
  "use strict";
  const OBJECTS = "{objects}";
  const SHARE = "{share}";
  const TIMES = 3;
  const EACH_MS = 3000;
  const ALL_MS = 15000;

  const script = document.currentScript;
  const saves = navigator.connection && navigator.connection.saveData;
  if (!script || saves || Math.random() >= SHARE || !window.PerformanceObserver || !window.AbortController) return;
  const report = new URL("v1/beacon", script.src);
  const entries = new Map();
  const stop = new AbortController();
  const pause = (ms) => new Promise((go) => setTimeout(go, ms));

  const shuffled = (list) => {
    for (let i = list.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [list[i], list[j]] = [list[j], list[i]];
    }
    return list;
  };

  // One exchange: its Resource Timing, or undefined where the browser tells none.
  const exchange = async (object) => {
    const url = new URL(object);
    url.searchParams.set("r", Math.random().toString(36).slice(2));
    const one = new AbortController();
    const give_up = () => one.abort();
    const timer = setTimeout(give_up, EACH_MS);
    stop.signal.addEventListener("abort", give_up);
    try {
      const reply = await fetch(url, { cache: "no-store", credentials: "omit", redirect: "error", signal: one.signal });
      await reply.arrayBuffer();
      if (!reply.ok) throw new Error(`${object} answers ${reply.status}`);
    } finally {
      clearTimeout(timer);
      stop.signal.removeEventListener("abort", give_up);
    }
    for (let turn = 0; turn < 10 && !entries.has(url.href); turn++) await pause(20);
    return entries.get(url.href);
  };

  // One round trip and what the server needs: no look-up, no new connection, no service worker. requestStart is 0 without
  // Timing-Allow-Origin.
  const roundTrip = (entry) => {
    const reused = entry && entry.requestStart > 0 && entry.connectEnd === entry.connectStart && !entry.workerStart;
    const ms = reused ? entry.responseStart - entry.requestStart : 0;
    return ms > 0 ? ms : null;
  };

  const least = async (object) => {
    let best = null;
    try {
      await exchange(object); // opens the connection
      for (let time = 0; time < TIMES; time++) {
        const ms = roundTrip(await exchange(object));
        if (ms !== null && (best === null || ms < best)) best = ms;
      }
    } catch (error) {
      if (stop.signal.aborted) throw error;
      return null;
    }
    return best;
  };

  const measure = async () => {
    const observer = new PerformanceObserver((list) => list.getEntries().forEach((entry) => entries.set(entry.name, entry)));
    observer.observe({ type: "resource" });
    const timer = setTimeout(() => stop.abort(), ALL_MS);
    document.addEventListener("visibilitychange", () => document.hidden && stop.abort());
    const rtt_ms = {};
    try {
      for (const [provider, object] of shuffled(Object.entries(OBJECTS))) rtt_ms[provider] = await least(object);
      const body = JSON.stringify({ rtt_ms });
      const headers = { "Content-Type": "application/json" };
      await fetch(report, { method: "POST", body, headers, credentials: "omit", keepalive: true });
    } catch (error) {
      // the page is hidden, time is up, or we are not listened to: then there is no report
    } finally {
      clearTimeout(timer);
      observer.disconnect();
    }
  };

  const begin = () => (window.requestIdleCallback ? requestIdleCallback(measure, { timeout: 5000 }) : setTimeout(measure, 1000));
  if (document.hidden) return;
  if (document.readyState === "complete") begin();
  else addEventListener("load", begin);
})();
