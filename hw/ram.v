// A deep bank of MEM: one read port, and one write port that enables bytes. `r_data` is the word at `r_addr` one cycle
// later; both ports must not meet in one address. Contents are undefined at power-up.
//
// Amaranth writes a memory's initial words one by one, so banks of this size stand here instead (see hw/mem.py).

module ram #(
    parameter DEPTH = 8192,
    parameter WIDTH = 512
) (
    input wire clk,
    input wire [$clog2(DEPTH)-1:0] r_addr,
    output reg [WIDTH-1:0] r_data,
    input wire [$clog2(DEPTH)-1:0] w_addr,
    input wire [WIDTH-1:0] w_data,
    input wire [WIDTH/8-1:0] w_we
);
  reg [WIDTH-1:0] words[0:DEPTH-1]  /* verilator public_flat_rw */;
  integer i;

  always @(posedge clk) begin
    r_data <= words[r_addr];
    for (i = 0; i < WIDTH / 8; i = i + 1) if (w_we[i]) words[w_addr][8*i+:8] <= w_data[8*i+:8];
  end
endmodule
