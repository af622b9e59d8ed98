# workerd with nop.js on one socket, whose address the command line gives:
#   workerd serve config.capnp --socket-addr http=127.0.0.1:PORT
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "nop", worker = .nop)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "nop")],
);

const nop :Workerd.Worker = (
  modules = [(name = "nop.js", esModule = embed "nop.js")],
  compatibilityDate = "2026-11-17",
);
