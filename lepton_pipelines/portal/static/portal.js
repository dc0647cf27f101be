// Two things that a page cannot do alone: keep up with a run, and recompute a proof where the reader sits.
"use strict";

const live = document.querySelector("[data-live]");
if (live) {
  const again = async () => {
    try {
      const answer = await fetch(live.dataset.live, { credentials: "same-origin" });
      if (!answer.ok || answer.redirected) return;
      const text = await answer.text();
      if (text !== live.dataset.shown) {
        live.dataset.shown = text;
        live.innerHTML = text; // rendered by the portal, which escapes whatever others wrote
      }
    } catch {
      // The portal is away for the moment: the next try tells.
    }
    if (!live.querySelector(".state.finished, .state.aborted")) setTimeout(again, 2000);
    else if (!document.hidden) location.reload();
  };
  setTimeout(again, 2000);
}

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const hex = (data) => Array.from(data, (b) => b.toString(16).padStart(2, "0")).join("");
const hash = async (...parts) => {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
};

// RFC 9162, section 2.1.3.2: from a leaf over the hashes beside its path to the root.
async function recompute(proof, tell) {
  let place = proof.index;
  let last = proof.size - 1;
  let node = await hash(Uint8Array.of(0), bytes(proof.leaf));
  tell(`entry ${proof.index}, hashed: ${hex(node)}`);
  for (const text of proof.hashes) {
    const sibling = bytes(text);
    if (last === 0) return false;
    if (place % 2 === 1 || place === last) {
      node = await hash(Uint8Array.of(1), sibling, node);
      tell(`with its left neighbour ${hex(sibling).slice(0, 16)}…: ${hex(node)}`);
      while (place % 2 === 0 && place !== 0) {
        place = Math.floor(place / 2);
        last = Math.floor(last / 2);
      }
    } else {
      node = await hash(Uint8Array.of(1), node, sibling);
      tell(`with its right neighbour ${hex(sibling).slice(0, 16)}…: ${hex(node)}`);
    }
    place = Math.floor(place / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && hex(node) === hex(bytes(proof.root));
}

const button = document.querySelector("[data-prove]");
if (button) {
  button.addEventListener("click", async () => {
    const place = document.getElementById("proof");
    place.replaceChildren();
    const list = document.createElement("ol");
    list.className = "hashes";
    const verdict = document.createElement("p");
    place.append(verdict, list);
    const say = (word, good) => {
      verdict.textContent = word;
      verdict.className = `note ${good ? "good" : "bad"}`;
    };
    try {
      if (!globalThis.crypto?.subtle) throw new Error("a browser hashes only on pages of this machine or behind https");
      const answer = await fetch(button.dataset.prove, { credentials: "same-origin" });
      if (!answer.ok) throw new Error(`the portal answered ${answer.status}`);
      const proof = await answer.json();
      const holds = await recompute(proof, (line) => {
        const item = document.createElement("li");
        item.textContent = line;
        list.append(item);
      });
      const root = hex(bytes(proof.root));
      say(
        holds
          ? `It is in the ledger: ${proof.hashes.length + 1} hashes lead from it to the root ${root.slice(0, 16)}… over ${proof.size} entries.`
          : `It is not: the hashes do not lead to the root ${root.slice(0, 16)}….`,
        holds,
      );
    } catch (error) {
      say(`It could not be recomputed: ${error.message}.`, false);
    }
  });
}
