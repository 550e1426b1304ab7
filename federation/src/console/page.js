// Fetches the page's inside anew and puts it in place; says so when the hub does not answer.
"use strict";
(() => {
  const main = document.querySelector("main");
  const state = document.querySelector("#live");
  const say = (text, bad) => { state.textContent = text; state.className = bad ? "bad" : "good"; };
  const again = () => setTimeout(look, 2000);
  // A selection is somebody copying a command: leave the page alone meanwhile.
  const busy = () => document.hidden || String(document.getSelection()).length > 0;
  async function look() {
    if (busy()) { return again(); }
    try {
      const answer = await fetch("/fragment", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) { throw new Error(answer.status); }
      main.innerHTML = await answer.text();
      say("live", false);
    } catch (error) {
      say("the hub does not answer, this is what it said last", true);
    }
    again();
  }
  say("live", false);
  again();
})();
