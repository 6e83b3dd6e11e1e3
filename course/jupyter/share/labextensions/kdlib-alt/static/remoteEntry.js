// A prebuilt extension of JupyterLab, written by hand: image/png outputs whose metadata hold an
// alternative text, {"image/png": {"alt": "..."}}, are shown with it.
(() => {
  let shared;

  async function load(name) {
    const versions = Object.values(shared[name]);
    return (await versions[0].get())();
  }

  async function extension() {
    const { IRenderMimeRegistry, RenderedImage } = await load("@jupyterlab/rendermime");

    class DescribedImage extends RenderedImage {
      async render(model) {
        await super.render(model);
        const { alt } = model.metadata["image/png"] ?? {};
        if (alt) this.node.querySelector("img").alt = alt;
      }
    }

    const plugin = {
      id: "kdlib-alt:plugin",
      autoStart: true,
      requires: [IRenderMimeRegistry],
      activate: (app, rendermime) =>
        rendermime.addFactory({
          safe: true,
          mimeTypes: ["image/png"],
          defaultRank: 90,
          createRenderer: (options) => new DescribedImage(options),
        }),
    };
    return () => ({ __esModule: true, default: plugin });
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB["kdlib-alt"] = {
    init: (scope) => { shared = scope; },
    get: extension,
  };
})();
