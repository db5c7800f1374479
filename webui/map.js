/* The map of the clusters: a tree on the Poincaré disk. Dragging moves the disk by a Möbius map, the wheel enlarges it. */
(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const PICTURE_FROM = 15;  // radius in pixels from which a circle shows its picture
  const make = (name, attributes, parent) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (parent) parent.append(made);
    return made;
  };

  /* z -> (z + a) / (1 + conj(a) z): an isometry of the disk that takes 0 to a. */
  function shift(z, a) {
    const re = z[0] + a[0], im = z[1] + a[1];
    const dre = 1 + a[0] * z[0] + a[1] * z[1], dim = a[0] * z[1] - a[1] * z[0];
    const norm = dre * dre + dim * dim;
    return [(re * dre + im * dim) / norm, (im * dre - re * dim) / norm];
  }

  function draw(frame, trigger) {
    const nodes = JSON.parse(frame.dataset.nodes);
    const byId = new Map(nodes.map((node) => [node.id, node]));
    const most = Math.max(...nodes.filter((node) => node.leaf).map((node) => node.seconds), 1);
    nodes.forEach((node) => { node.z = [node.x, node.y]; });
    let zoom = 1, centre = [0, 0];
    const size = 640, half = size / 2, reach = half - 12;
    const svg = make('svg', { viewBox: `0 0 ${size} ${size}`, 'aria-hidden': 'true' }, frame);
    const clip = make('clipPath', { id: 'vx-disc', clipPathUnits: 'objectBoundingBox' }, make('defs', {}, svg));
    make('circle', { cx: 0.5, cy: 0.5, r: 0.5 }, clip);
    const rim = make('circle', { class: 'vx-rim' }, svg);
    const lines = make('g', { class: 'vx-geodesics' }, svg), dots = make('g', {}, svg), names = make('g', { class: 'vx-map-names' }, svg);
    const tip = document.createElement('div');
    tip.className = 'vx-tip';
    const said = document.createElement('span');
    said.className = 'vx-said';
    said.setAttribute('role', 'status');
    frame.append(tip, said);
    for (const node of nodes) {
      if (byId.has(node.parent)) node.line = make('path', {}, lines);
      node.group = make('g', { class: node.leaf ? 'vx-leaf' : 'vx-knot', 'data-id': node.id }, dots);
      node.circle = make('circle', { fill: node.colour }, node.group);
      if (node.named) {
        node.label = make('text', {}, names);
        node.label.textContent = node.name.length > 28 ? `${node.name.slice(0, 27)}…` : node.name;
      }
    }
    const onScreen = (z) => [half + (z[0] * reach - centre[0]) * zoom, half + (z[1] * reach - centre[1]) * zoom];

    /* The geodesic of two points is an arc of the circle through them and orthogonal to the rim. */
    function arc(a, b) {
      const [ax, ay] = onScreen(a), [bx, by] = onScreen(b);
      const det = 2 * (a[0] * b[1] - a[1] * b[0]);
      const straight = `M${ax.toFixed(1)} ${ay.toFixed(1)}L${bx.toFixed(1)} ${by.toFixed(1)}`;
      if (Math.abs(det) < 1e-4) return straight;
      const na = 1 + a[0] * a[0] + a[1] * a[1], nb = 1 + b[0] * b[0] + b[1] * b[1];
      const c = [(na * b[1] - nb * a[1]) / det, (nb * a[0] - na * b[0]) / det];
      const radius = Math.sqrt(Math.max(c[0] * c[0] + c[1] * c[1] - 1, 0)) * reach * zoom;
      if (radius > 1e4) return straight;
      const sweep = (a[0] - c[0]) * (b[1] - c[1]) - (a[1] - c[1]) * (b[0] - c[0]) > 0 ? 1 : 0;
      return `M${ax.toFixed(1)} ${ay.toFixed(1)}A${radius.toFixed(1)} ${radius.toFixed(1)} 0 0 ${sweep} ${bx.toFixed(1)} ${by.toFixed(1)}`;
    }

    function place() {
      const [cx, cy] = onScreen([0, 0]);
      rim.setAttribute('cx', cx); rim.setAttribute('cy', cy); rim.setAttribute('r', reach * zoom);
      for (const node of nodes) {
        const [x, y] = onScreen(node.z);
        const scale = 1 - node.z[0] * node.z[0] - node.z[1] * node.z[1];  // how large the disk shows what is there
        const r = (node.leaf ? 14 + 30 * Math.sqrt(node.seconds / most) : 7) * Math.sqrt(scale) * Math.sqrt(zoom);
        node.r = Math.max(r, 2);
        node.group.setAttribute('transform', `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
        node.circle.setAttribute('r', node.r.toFixed(1));
        if (node.leaf && node.still && node.r >= PICTURE_FROM && !node.image) {
          node.image = make('image', { href: node.still, preserveAspectRatio: 'xMidYMid slice', 'clip-path': 'url(#vx-disc)' }, node.group);
        }
        if (node.image) {
          const inner = node.r - 2.5;
          for (const [key, value] of [['x', -inner], ['y', -inner], ['width', 2 * inner], ['height', 2 * inner]]) node.image.setAttribute(key, value.toFixed(1));
          node.image.style.display = node.r >= PICTURE_FROM ? '' : 'none';
        }
        if (node.line) node.line.setAttribute('d', arc(byId.get(node.parent).z, node.z));
      }
      placeNames();
    }

    /* Names that people gave stand beside their circles, largest first, where they cover neither circle nor name. */
    function placeNames() {
      const wide = Math.max(size, size * frame.clientWidth / Math.max(1, frame.clientHeight)) / 2 - 6, taken = [];
      const spots = nodes.map((node) => { const [x, y] = onScreen(node.z); return { node, x, y }; });
      for (const { node, x, y } of spots.filter((spot) => spot.node.label).sort((a, b) => b.node.r - a.node.r)) {
        const width = 6.3 * node.label.textContent.length, outward = x >= half ? 1 : -1;
        const left = outward > 0 ? x + node.r + 4 : x - node.r - 4 - width, box = [left, y - 8, left + width, y + 8];
        const free = box[0] > half - wide && box[2] < half + wide
          && taken.every((other) => other[2] < box[0] || other[0] > box[2] || other[3] < box[1] || other[1] > box[3])
          && spots.every((other) => other.node === node
            || Math.hypot(other.x - Math.min(Math.max(other.x, box[0]), box[2]), other.y - Math.min(Math.max(other.y, box[1]), box[3])) > other.node.r);
        node.label.style.display = free ? '' : 'none';
        if (!free) continue;
        taken.push(box);
        for (const [key, value] of [['x', outward > 0 ? left : left + width], ['y', y + 4], ['text-anchor', outward > 0 ? 'start' : 'end']]) node.label.setAttribute(key, value);
      }
    }

    const inDisk = (event) => {
      const box = svg.getBoundingClientRect(), scale = size / Math.min(box.width, box.height);
      const x = (event.clientX - box.left - box.width / 2) * scale, y = (event.clientY - box.top - box.height / 2) * scale;
      const z = [(x / zoom + centre[0]) / reach, (y / zoom + centre[1]) / reach];
      const length = Math.hypot(z[0], z[1]);
      return length < 0.98 ? z : [z[0] * 0.98 / length, z[1] * 0.98 / length];
    };
    const moveAll = (a) => { nodes.forEach((node) => { node.z = shift(node.z, a); }); place(); };
    const reset = () => { zoom = 1; centre = [0, 0]; nodes.forEach((node) => { node.z = [node.x, node.y]; }); place(); };
    const enlarge = (by) => { zoom = Math.min(8, Math.max(0.7, zoom * by)); if (zoom <= 1) centre = [0, 0]; place(); };
    function bring(z) {  // to the middle, in a few steps so that the eye can follow
      const still = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
      const steps = still ? 1 : 12, length = Math.hypot(z[0], z[1]);
      if (length < 1e-6) return;
      const part = Math.tanh(Math.atanh(Math.min(length, 0.9999)) / steps) / length;
      let done = 0;
      const step = () => { moveAll([-z[0] * part, -z[1] * part]); done += 1; if (done < steps) requestAnimationFrame(step); };
      step();
    }

    const nodeOf = (event) => { const group = event.target.closest && event.target.closest('[data-id]'); return group && byId.get(group.dataset.id); };
    function show(node) {
      tip.textContent = '';
      if (!node) { tip.style.display = 'none'; return; }
      if (node.still) { const image = new Image(200, 113); image.src = node.still; image.alt = ''; tip.append(image); }
      const words = document.createElement('p');
      words.textContent = `${node.name} · ${node.seconds.toLocaleString()} s`;
      tip.append(words);
      const [x, y] = onScreen(node.z), box = svg.getBoundingClientRect(), outer = frame.getBoundingClientRect();
      const scale = Math.min(box.width, box.height) / size;
      const left = box.left - outer.left + box.width / 2 + (x - half) * scale, top = box.top - outer.top + box.height / 2 + (y - half) * scale;
      tip.style.display = 'block';
      const beside = left + node.r * scale + 8;  // on the other side where there is no room
      tip.style.left = `${beside < outer.width - 216 ? beside : Math.max(4, left - node.r * scale - 220)}px`;
      tip.style.top = `${Math.min(Math.max(4, top - 60), outer.height - 160)}px`;
    }

    let from = null, moved = false;
    svg.addEventListener('pointerdown', (event) => { from = inDisk(event); moved = false; svg.setPointerCapture(event.pointerId); });
    svg.addEventListener('pointermove', (event) => {
      if (from === null) { show(nodeOf(event)); return; }
      const to = inDisk(event);
      if (!moved && Math.hypot(to[0] - from[0], to[1] - from[1]) * zoom < 0.012) return;
      moved = true;
      show(null);
      const back = [-from[0], -from[1]];
      nodes.forEach((node) => { node.z = shift(shift(node.z, back), to); });
      from = to;
      place();
    });
    svg.addEventListener('pointerup', (event) => {
      const was = moved, start = from;
      from = null; moved = false;
      if (was || start === null) return;
      const under = document.elementFromPoint(event.clientX, event.clientY);
      const group = under && under.closest('[data-id]'), node = group && byId.get(group.dataset.id);
      if (!node) return;
      if (node.leaf && node.play) trigger('play', { value: node.play }); else bring(node.z);
    });
    svg.addEventListener('pointerleave', () => { if (from === null) show(null); });
    svg.addEventListener('dblclick', (event) => {
      const under = document.elementFromPoint(event.clientX, event.clientY), group = under && under.closest('[data-id]');
      if (group) trigger('open', { value: group.dataset.id });
    });
    svg.addEventListener('wheel', (event) => {
      event.preventDefault();
      const before = inDisk(event);
      enlarge(event.deltaY < 0 ? 1.15 : 1 / 1.15);
      const after = inDisk(event);
      if (zoom > 1) { centre = [centre[0] + (before[0] - after[0]) * reach, centre[1] + (before[1] - after[1]) * reach]; place(); }
    }, { passive: false });
    /* Without a mouse the circle nearest the middle is the one that is meant. */
    const nearest = () => nodes.filter((node) => node.leaf).sort((a, b) => Math.hypot(...a.z) - Math.hypot(...b.z))[0];
    const point = () => {
      const meant = nearest();
      nodes.forEach((node) => node.group.classList.toggle('vx-meant', node === meant));
      show(meant);
      said.textContent = meant ? meant.name : '';
    };
    frame.addEventListener('focus', () => { if (frame.matches(':focus-visible')) point(); });
    frame.addEventListener('blur', () => { nodes.forEach((node) => node.group.classList.remove('vx-meant')); show(null); });
    frame.addEventListener('keydown', (event) => {
      const way = { ArrowLeft: [0.15, 0], ArrowRight: [-0.15, 0], ArrowUp: [0, 0.15], ArrowDown: [0, -0.15] }[event.key];
      if (way) { event.preventDefault(); moveAll(way); point(); }
      const meant = nearest();
      if (event.key === 'Enter' && meant && meant.play) { event.preventDefault(); trigger('play', { value: meant.play }); }
      if (event.key === 'o' && meant) trigger('open', { value: meant.id });
      if (event.key === '+' || event.key === '=') enlarge(1.4);
      if (event.key === '-') enlarge(1 / 1.4);
      if (event.key === '0' || event.key === 'Home') reset();
    });
    frame.parentElement.querySelectorAll('[data-zoom]').forEach((button) => {
      button.onclick = () => { const by = Number(button.dataset.zoom); if (by) enlarge(by); else reset(); };
    });
    place();
  }

  window.vxMap = (element, trigger) => {
    const look = () => element.querySelectorAll('.vx-map:not([data-drawn])').forEach((frame) => {
      frame.dataset.drawn = '1';
      draw(frame, trigger);
    });
    new MutationObserver(look).observe(element, { childList: true, subtree: true });
    look();
  };
})();
