// What the pages do beyond links and forms. Everything works without it, but for news by themselves.
(() => {
  "use strict";

  const STORED = "pgq_fast live";
  // A page is not drawn anew more often than this, however busy the queue is; milliseconds.
  const SHORTEST = 2000;
  // A screen reader is not told more often than this.
  const SPOKEN = 30000;

  const notice = document.getElementById("notice");
  const summary = document.getElementById("summary");
  const liveSwitch = document.getElementById("live-switch");
  const isLive = () => sessionStorage.getItem(STORED) !== "off";

  // -- News ---------------------------------------------------------------------------------

  let lastDrawn = 0;
  let timer = null;

  function news() {
    if (timer !== null) return;
    const wait = Math.max(0, lastDrawn + SHORTEST - Date.now());
    timer = setTimeout(() => {
      timer = null;
      lastDrawn = Date.now();
      document.body.dispatchEvent(new CustomEvent("queue-change"));
    }, wait);
  }

  const stream = document.body.dataset.events;
  if (stream) {
    const source = new EventSource(stream);
    source.addEventListener("queue-change", news);
    window.addEventListener("pagehide", () => source.close());
  }

  // Nobody's choice, open traceback or place on the page is taken away under their hands.
  function isInUse(region) {
    const active = document.activeElement;
    return (
      region.querySelector("input:checked, details[open]") !== null ||
      (active !== null && region.contains(active) && active.matches("input, button, a, select, summary"))
    );
  }

  document.body.addEventListener("htmx:beforeRequest", (event) => {
    const region = event.detail.elt;
    if (!region.hasAttribute("data-live")) return;
    if (!isLive() || document.hidden || isInUse(region)) event.preventDefault();
  });

  // It may have come into use while the request was under way.
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const region = event.detail.target;
    if (region.hasAttribute("data-live") && isInUse(region)) event.detail.shouldSwap = false;
  });

  let failing = false;
  function fails(words) {
    failing = true;
    notice.textContent = words;
    notice.classList.add("bad");
  }
  document.body.addEventListener("htmx:responseError", (event) =>
    fails(`The page is not up to date: the dashboard answered ${event.detail.xhr.status}.`));
  document.body.addEventListener("htmx:sendError", () =>
    fails("The page is not up to date: the dashboard does not answer."));

  let spoken = "";
  let spokenAt = Date.now();
  document.body.addEventListener("htmx:afterSwap", () => {
    if (failing) {
      failing = false;
      notice.textContent = "";
      notice.classList.remove("bad");
    }
    const said = document.querySelector("[data-summary]")?.dataset.summary ?? "";
    if (said !== spoken && Date.now() - spokenAt >= SPOKEN) {
      summary.textContent = spoken = said;
      spokenAt = Date.now();
    }
  });

  if (document.querySelector("[data-live]") !== null) {
    const show = () => liveSwitch.setAttribute("aria-pressed", String(isLive()));
    liveSwitch.hidden = false;
    liveSwitch.addEventListener("click", () => {
      sessionStorage.setItem(STORED, isLive() ? "off" : "on");
      show();
    });
    show();
  }

  // -- Forms --------------------------------------------------------------------------------

  document.body.addEventListener("change", (event) => {
    const box = event.target;
    if (box.matches("[data-all]")) {
      for (const each of box.form.querySelectorAll('input[name="ids"]')) each.checked = box.checked;
    }
  });

  document.body.addEventListener("submit", (event) => {
    const question = event.submitter?.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });
})();
