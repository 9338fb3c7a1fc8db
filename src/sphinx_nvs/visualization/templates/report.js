"use strict";
// The wipe: two pictures of one view on top of one another, the left one cut off where the slider stands.
for (const scene of document.querySelectorAll(".scene")) {
  const wipe = scene.querySelector(".wipe");
  const [right, left] = wipe.querySelectorAll("img");
  const bar = wipe.querySelector(".bar");
  const slider = scene.querySelector("input[type=range]");
  const [leftName, rightName] = scene.querySelectorAll("select");
  const thumbs = new Map();
  for (const image of scene.querySelectorAll(".multiples img")) thumbs.set(image.dataset.name, image);

  const move = (share) => {
    slider.value = share;
    left.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    bar.style.left = `${share}%`;
  };
  const show = () => {
    left.src = thumbs.get(leftName.value).src;
    right.src = thumbs.get(rightName.value).src;
    left.alt = leftName.value;
    right.alt = rightName.value;
  };
  const follow = (event) => {
    const box = wipe.getBoundingClientRect();
    move(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
  };
  slider.addEventListener("input", () => move(slider.value));
  wipe.addEventListener("pointerdown", (event) => { wipe.setPointerCapture(event.pointerId); follow(event); });
  wipe.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
  leftName.addEventListener("change", show);
  rightName.addEventListener("change", show);
  for (const [name, image] of thumbs) {
    image.addEventListener("click", (event) => {
      (event.shiftKey ? leftName : rightName).value = name;
      show();
    });
  }
  show();
  move(50);
}
