// SPDX-License-Identifier: GPL-2.0-or-later
// A browser starts no worker from a file. The search of this site, opened as files, then runs in a
// hidden frame instead, which speaks as a worker would. Put before the theme's own script by
// scripts/site_hooks.py.
if (location.protocol === "file:")
	window.Worker = class extends EventTarget {
		constructor(address) {
			super();
			this.waiting = [];
			this.frame = document.createElement("iframe");
			this.frame.hidden = true;
			window.addEventListener("message", (event) => {
				if (event.source !== this.frame.contentWindow) return;
				this.dispatchEvent(new MessageEvent("message", { data: event.data }));
			});
			this.frame.addEventListener("load", () => this.#begin(address), { once: true });
			document.body.appendChild(this.frame);
		}

		#begin(address) {
			const inner = this.frame.contentWindow;
			inner.importScripts = (...addresses) => Promise.all(addresses.map((one) => load(inner, one)));
			inner.postMessage = (data) => window.dispatchEvent(
				new MessageEvent("message", { data, source: inner }));
			load(inner, address).then(() => {
				this.ready = true;
				this.waiting.splice(0).forEach((data) => this.postMessage(data));
			});
		}

		postMessage(data) {
			if (!this.ready) this.waiting.push(data);
			else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
		}

		terminate() {
			this.frame.remove();
		}
	};

function load(inner, address) {
	return new Promise((resolve, reject) => {
		const script = inner.document.createElement("script");
		Object.assign(script, { src: address, onload: resolve, onerror: reject });
		inner.document.body.appendChild(script);
	});
}
