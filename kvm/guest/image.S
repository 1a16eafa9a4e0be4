/* SPDX-License-Identifier: MIT */
/* The assembled guest, build/guest.bin, as bytes of the program: guest_image .. guest_image_end. */
        .section .rodata
        .balign 16
        .hidden guest_image
        .hidden guest_image_end
        .globl guest_image
        .globl guest_image_end
guest_image:
        .incbin GUEST_BIN
guest_image_end:
        .section .note.GNU-stack, "", @progbits
