/* Playing, seeking, the timeline and the keyboard. Everything that needs the server goes through the data-act buttons. */
(() => {
  const fetchTime = (player) => player.currentTime + Number(player.dataset.origin || 0);

  /* Play a moment from its first second; where the browser cannot play the file, turn to the proxy once. */
  function begin(player) {
    const wanted = player.getAttribute('src') + '|' + player.dataset.seek;
    if (player.vxBegun === wanted) return;
    player.vxBegun = wanted;
    const seek = () => {
      player.currentTime = Math.max(0, Number(player.dataset.seek) - Number(player.dataset.origin || 0));
      if (player.id === 'vx-player') player.play().catch(() => {});  // without a gesture browsers refuse; the controls are there
    };
    if (player.readyState >= 1 && player.vxSource === player.getAttribute('src')) seek();
    else player.addEventListener('loadedmetadata', () => { player.vxSource = player.getAttribute('src'); seek(); }, { once: true });
    player.onerror = () => {
      if (player.getAttribute('src') === player.dataset.proxy) { tellWhy(player); return; }
      player.dataset.origin = player.dataset.proxyOrigin;
      player.setAttribute('src', player.dataset.proxy);
      begin(player);
    };
    player.ontimeupdate = () => { moveLine(player); keepStep(player); };
    player.onplay = player.onpause = player.onseeked = () => keepStep(player, true);
  }

  /* Neither the file nor a copy of it can be played: say why, in the server's words. */
  async function tellWhy(player) {
    const source = player.getAttribute('src'), answer = await fetch(source).catch(() => null);
    const why = answer && !answer.ok ? await answer.text() : 'the browser cannot play it';
    if (player.getAttribute('src') !== source || !player.isConnected) return;
    const words = player.parentElement.querySelector('.vx-unplayable') || document.createElement('p');
    words.className = 'vx-reason vx-unplayable';
    words.setAttribute('role', 'alert');
    words.textContent = `This cannot be played: ${why}.`;
    player.after(words);
    const note = player.parentElement.querySelector('.vx-note');
    if (note) note.remove();
  }

  /* A picture that cannot be made, mostly since its file is gone, becomes a quiet mark in its place. */
  const NO_PICTURE = 'data:image/svg+xml,' + encodeURIComponent('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 180" preserveAspectRatio="xMidYMid slice"><rect width="320" height="180" fill="#3a3d46"/><text x="160" y="97" font-family="system-ui, sans-serif" font-size="20" text-anchor="middle" fill="#d6d8e0">no picture</text></svg>');
  document.addEventListener('error', (event) => {
    const image = event.target;
    if (!(image instanceof HTMLImageElement) || !(image.getAttribute('src') || '').startsWith('/media/')) return;
    if (image.closest('.vx-timeline')) image.style.visibility = 'hidden';
    else { image.src = NO_PICTURE; image.title = 'The file of this video was moved or changed, or cannot be read.'; }
  }, true);

  function moveLine(player) {
    if (player.id !== 'vx-player') return;
    document.querySelectorAll('.vx-timeline, .vx-clusterline').forEach((timeline) => {
      const line = timeline.querySelector('.vx-head-line');
      const share = (fetchTime(player) - Number(timeline.dataset.first || 0)) / Number(timeline.dataset.length);
      line.style.display = share >= 0 && share <= 1 ? 'block' : 'none';
      line.style.left = (100 * share) + '%';
    });
  }

  /* What was asked with, beside it, at the second that the moment answers. */
  function keepStep(player, now) {
    const query = document.getElementById('vx-asked'), box = document.getElementById('vx-step');
    if (player.id !== 'vx-player' || !query || !box || player.dataset.queryOffset === undefined) return;
    query.controls = !box.checked;
    if (!box.checked) { if (now) query.pause(); return; }
    const time = fetchTime(player) - Number(player.dataset.queryOffset) - Number(query.dataset.origin || 0);
    const inside = time >= 0 && time <= (query.duration || 0);
    query.muted = true;
    if (inside && (now || Math.abs(query.currentTime - time) > 0.25)) query.currentTime = time;
    if (player.paused || !inside) query.pause(); else query.play().catch(() => {});
  }

  const look = () => document.querySelectorAll('video[data-seek], audio[data-seek]').forEach(begin);
  new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true, attributes: true, attributeFilter: ['src', 'data-seek'] });

  document.addEventListener('click', (event) => {
    const timeline = event.target.closest && event.target.closest('.vx-timeline, .vx-clusterline');
    const player = document.getElementById('vx-player');
    if (!timeline || !player) return;
    const box = timeline.getBoundingClientRect();
    const second = Number(timeline.dataset.first || 0) + (event.clientX - box.left) / box.width * Number(timeline.dataset.length);
    player.currentTime = Math.max(0, second - Number(player.dataset.origin || 0));
  });

  document.addEventListener('keydown', (event) => {
    const typing = event.target.closest && event.target.closest('input, textarea, select, [contenteditable]');
    const card = event.target.closest && event.target.closest('.vx-card');
    if (event.key === 'Escape') { const close = document.querySelector('[data-act="close"]'); if (close) close.click(); return; }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (card && event.target === card && (event.key === 'Enter' || event.key === ' ')) { event.preventDefault(); card.click(); return; }
    const act = { m: 'more', n: 'unlike', b: 'collect', h: 'hide' }[event.key];
    if (card && act) { const button = card.querySelector(`[data-act="${act}"]`); if (button) button.click(); return; }
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && card) {
      const cards = [...document.querySelectorAll('.vx-card')];
      const next = cards[cards.indexOf(card) + step];
      if (next) { event.preventDefault(); next.focus(); }
    }
  });

  document.addEventListener('change', (event) => {
    const player = document.getElementById('vx-player');
    if (event.target.id === 'vx-step' && player) keepStep(player, true);
  });

  /* A note is stored when its field is left, which may be by the click on Export: that waits for it. */
  let noted = -Infinity;
  document.addEventListener('change', (event) => { if (event.target.matches('.vx-note-field')) noted = performance.now(); }, true);
  document.addEventListener('click', (event) => {
    const button = event.target.closest && event.target.closest('#vx-export');
    if (!button || performance.now() - noted > 1000) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    noted = -Infinity;
    setTimeout(() => button.click(), 1000);
  }, true);

  /* A file that is too large is refused before it is sent, in words; the server refuses it too. */
  function refuseLarge(event, files) {
    const large = [...(files || [])].find((file) => file.size > window.vxMaxBytes);
    if (!large) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.type === 'change') event.target.value = '';
    const size = (bytes) => `${Math.ceil(bytes / 1e6).toLocaleString()} MB`;
    say(`${large.name} has ${size(large.size)}; this page takes up to ${size(window.vxMaxBytes)}. Cut out the part you mean.`);
  }
  function say(words) {
    const before = document.getElementById('vx-say');
    if (before) before.remove();
    const box = document.createElement('div');
    box.id = 'vx-say';
    box.setAttribute('role', 'alert');
    box.textContent = words;
    document.body.append(box);
    setTimeout(() => box.remove(), 12000);
  }
  document.addEventListener('change', (event) => { if (event.target.type === 'file') refuseLarge(event, event.target.files); }, true);
  document.addEventListener('drop', (event) => refuseLarge(event, event.dataTransfer && event.dataTransfer.files), true);

  /* A finished export is fetched once, without another click. */
  const fetched = new Set();
  new MutationObserver(() => document.querySelectorAll('a[data-fetch]').forEach((link) => {
    if (fetched.has(link.href)) return;
    fetched.add(link.href);
    link.click();
  })).observe(document.documentElement, { childList: true, subtree: true });

  /* Choosing a span on the pictures of a video: drag, or arrow keys (with Shift for the end). */
  window.vxPick = (element, trigger) => {
    let from = null;
    const at = (event, strip) => {
      const box = strip.getBoundingClientRect();
      return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * Number(strip.dataset.length);
    };
    const show = (strip, a, b) => {
      const chosen = strip.querySelector('.vx-chosen'), length = Number(strip.dataset.length);
      chosen.style.left = (100 * Math.min(a, b) / length) + '%';
      chosen.style.width = (100 * Math.max(0.5, Math.abs(b - a)) / length) + '%';
    };
    element.addEventListener('pointerdown', (event) => {
      const strip = event.target.closest('.vx-strip');
      if (!strip) return;
      strip.setPointerCapture(event.pointerId);
      from = at(event, strip);
      show(strip, from, from);
    });
    element.addEventListener('pointermove', (event) => {
      const strip = event.target.closest('.vx-strip');
      if (strip && from !== null) show(strip, from, at(event, strip));
    });
    element.addEventListener('pointerup', (event) => {
      const strip = event.target.closest('.vx-strip');
      if (!strip || from === null) return;
      const to = at(event, strip), length = Number(strip.dataset.length);
      const start = Math.floor(Math.min(from, to)), end = Math.min(length, Math.max(start + 1, Math.ceil(Math.max(from, to))));
      from = null;
      trigger('span', { start, end });
    });
    element.addEventListener('keydown', (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const strip = event.target.closest('.vx-strip');
      if (!step || !strip) return;
      event.preventDefault();
      trigger('span', { step, end_only: event.shiftKey });
    });
  };
})();
