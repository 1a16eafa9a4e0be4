; SPDX-License-Identifier: MIT
; In place of a PC's BIOS: copies what stands at the ROM's beginning to 0x7c00 and jumps there. A real
; BIOS takes seconds where KVM has to interpret. bench/compare-qemu puts the image there.
;
; 64 KiB below 4 GiB; the same bytes are seen at 0xf0000, from where this runs.

IMAGE_BYTES     equ 0x8000

                org 0
                bits 16
                times IMAGE_BYTES db 0
boot:
                cli
                cld
                mov ax, 0xf000
                mov ds, ax
                xor ax, ax
                mov es, ax
                xor si, si
                mov di, 0x7c00
                mov cx, 0x0800          ; words; the image has less, the rest of the room is 0
                rep movsw
                jmp 0:0x7c00

                times 0xfff0 - ($ - $$) db 0
                jmp 0xf000:boot         ; the first instruction
                times 0x10000 - ($ - $$) db 0
