// Answers every request with an empty 200, as `nop` does.
export default {
  fetch() {
    return new Response(null);
  },
};
